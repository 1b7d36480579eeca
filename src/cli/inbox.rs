//! `notihub inbox`: the inbox of a user, for those who support it.

use clap::Args;
use serde_json::{Value, json};

use super::user::{Named, find};
use super::{Output, print, process};
use crate::config::{Database, Log};
use crate::error::Result;
use crate::model::inbox::{INBOX_FILTERS, InboxFilter, InboxItem};
use crate::store::inbox::ItemQuery;
use crate::{flow, limits, telemetry};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  notihub inbox shop u-1\n  notihub inbox shop u-1 --filter archived --output \
json\n\nIt changes nothing: what is unread stays unread. The audit log records who read whose inbox.")]
pub struct Inbox {
    #[command(flatten)]
    named: Named,
    /// all: neither archived, nor snoozed, nor expired; unread, of these; archived; snoozed.
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = parse_filter)]
    filter: InboxFilter,
    /// Items at most, the newest arrivals.
    #[arg(
        long,
        value_name = "N",
        default_value_t = limits::PAGE_DEFAULT,
        value_parser = clap::value_parser!(i64).range(1..=limits::HOUSEKEEPING_BATCH)
    )]
    limit: i64,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
}

fn parse_filter(text: &str) -> std::result::Result<InboxFilter, String> {
    let found = INBOX_FILTERS.into_iter().find(|filter| filter.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| "is none of all, unread, archived, snoozed".into())
}

/// `notihub inbox`: prints the items and the counts.
///
/// # Errors
/// `Error::Setup` for a partner or user that does not exist; `Error::Unavailable` if the database cannot be reached.
pub async fn run(args: Inbox, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let (hub, actor) = process::open_for_command(&args.database).await?;
    let read = async {
        let (_, user) = find(&hub, &args.named).await?;
        let query = ItemQuery { filter: args.filter, kind: None, below: None, limit: args.limit };
        let items = flow::inbox::list_for_support(&hub, actor.operator_permit()?, &user, &query).await?;
        let counts = flow::inbox::counts(&hub, (user.shard, user.user_id)).await?;
        match output {
            Output::Json => print::json(&json!({
                "userId": user.user_id.to_string(),
                "unread": counts.unread,
                "unseen": counts.unseen,
                "seq": counts.seq,
                "items": items.iter().map(to_json).collect::<Vec<_>>(),
            })),
            Output::Text => {
                items.iter().for_each(print_line);
                anstream::println!("{}: {} unread, {} unseen", user.user_id, counts.unread, counts.unseen);
            }
        }
        Ok(0)
    };
    let done = read.await;
    hub.shutdown.stop();
    hub.store.close().await;
    done
}

fn to_json(item: &InboxItem) -> Value {
    json!({
        "id": format!("{}-{}", item.message_id, item.no),
        "type": item.text.kind,
        "title": item.text.title,
        "body": item.text.body,
        "seen": item.is_seen,
        "arrivedAt": item.arrived_at.to_rfc3339(),
        "readAt": item.read_at.map(|at| at.to_rfc3339()),
        "archivedAt": item.archived_at.map(|at| at.to_rfc3339()),
        "snoozedUntil": item.snoozed_until.map(|at| at.to_rfc3339()),
        "expiresAt": item.expires_at.map(|at| at.to_rfc3339()),
        "seq": item.seq,
    })
}

fn print_line(item: &InboxItem) {
    let state = match (item.archived_at, item.snoozed_until, item.read_at) {
        (Some(_), ..) => "archived",
        (None, Some(_), _) => "snoozed",
        (None, None, Some(_)) => "read",
        (None, None, None) if item.is_seen => "unread",
        (None, None, None) => "new",
    };
    let text = item.text.title.as_deref().unwrap_or(&item.text.body);
    anstream::println!(
        "{}-{} {} {state:<8} {}",
        item.message_id,
        item.no,
        item.arrived_at.format("%Y-%m-%d %H:%M:%S"),
        print::printable(text.lines().next().unwrap_or_default())
    );
}
