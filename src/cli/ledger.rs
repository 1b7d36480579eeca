//! `notihub ledger`: what was accepted, and how it ended, to the message.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use chrono::{Days, NaiveDate};
use clap::Args;
use serde_json::{Value, json};

use super::fsck::{Progress, Since, since};
use super::{Output, print, process};
use crate::clock::Clock;
use crate::config::{Database, Log};
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::ledger::{Acknowledged, DayBalance};
use crate::id::Tsid;
use crate::limits;
use crate::model::ledger::Balance;
use crate::model::partner::Partner;
use crate::model::text::composed;
use crate::store::Conn;
use crate::telemetry;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  notihub ledger\n  notihub ledger --since 7d --partner orders\n  notihub ledger \
--acknowledged ids.txt\n\nMessages are counted from their own rows, their endings from the rows of deliveries; \
webhooks are left out. Each message is in one column: COMPLETED, PARTIAL, FAILED, CANCELED, or in flight \
(PENDING, PROCESSING). It only reads: a role that may read all tables is enough, and so is a hot standby. Exit codes: \
0 everything balances, 1 something does not, or an acknowledged message is missing.")]
pub struct Ledger {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
    /// All days since then: how long ago (2h, 7d), or a time as 2026-12-24T09:00:00+09:00. Without it and --day, today
    /// and yesterday.
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "day")]
    since: Option<Since>,
    /// The day of acceptance, in each partner's time zone, as 2026-12-24.
    #[arg(long, value_name = "DAY")]
    day: Option<NaiveDate>,
    /// Only this partner, by name or id.
    #[arg(long, value_name = "PARTNER")]
    partner: Option<String>,
    /// Look up the messages whose ids are in this file, one a line (-: standard input), and show how they ended and
    /// which of them are not in the database. Messages whose retention is over are not.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "day", "partner"])]
    acknowledged: Option<PathBuf>,
}

/// Runs `notihub ledger`. Returns the exit code: 0 when everything balances, 1 otherwise.
///
/// # Errors
/// `Error::Usage` for a file that cannot be read as ids, `Error::Setup` for settings or an unknown partner,
/// `Error::Unavailable` if the database cannot be reached.
pub async fn run(args: Ledger, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let ids = args.acknowledged.as_deref().map(read_ids).transpose()?;
    let store = process::reading_store(&args.database, &process::database_url(&args.database)?).await?;
    let mut conn = store.connect_for_fsck().await?;
    if let Some(ids) = ids {
        return Ok(show_acknowledged(&flow::ledger::acknowledged(&mut conn, &ids).await?, output));
    }
    let mut partners = flow::ledger::partners(&mut conn).await?;
    if let Some(wanted) = &args.partner {
        let name = composed(wanted.clone());
        partners.retain(|partner| partner.name == name || wanted.parse() == Ok(partner.partner_id));
        if partners.is_empty() {
            let why = format!("there is no partner '{wanted}'; `notihub partner list` shows all");
            return Err(Error::Setup(why));
        }
    }
    let days = match args.day {
        Some(day) => Some((day, day)),
        None => days(&mut conn, &args, &partners).await?,
    };
    let mut rows = Vec::new();
    let mut progress = Progress::new(output);
    if let Some((first, last)) = days {
        for day in first.iter_days().take_while(|day| *day <= last) {
            let counted = flow::ledger::balance(&mut conn, &partners, day, |messages| {
                progress.count(&day.to_string(), messages);
                true
            });
            let counted = counted.await?.into_iter().flatten();
            rows.extend(counted.filter(|row| args.partner.is_some() || row.balance != Balance::default()));
        }
    }
    progress.clear();
    Ok(show(&rows, output))
}

async fn days(conn: &mut Conn, args: &Ledger, partners: &[Partner]) -> Result<Option<(NaiveDate, NaiveDate)>> {
    let now = Clock::system().now();
    let from = args.since.map_or(now, |since| since.time(now));
    let days = flow::ledger::days(conn, partners, from, now).await?;
    let yesterday = if args.since.is_none() { 1 } else { 0 };
    Ok(days.map(|(first, last)| (first - Days::new(yesterday), last)))
}

/// Reads ids, one a line. Blank lines are left out.
fn read_ids(file: &Path) -> Result<BTreeSet<Tsid>> {
    let unreadable = |e: std::io::Error| Error::Usage(format!("{}: {e}", file.display()));
    let lines: Box<dyn Iterator<Item = std::io::Result<String>>> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock().lines())
    } else {
        Box::new(std::io::BufReader::new(std::fs::File::open(file).map_err(unreadable)?).lines())
    };
    let mut ids = BTreeSet::new();
    for (n, line) in lines.enumerate() {
        let line = line.map_err(unreadable)?;
        if !line.trim().is_empty() {
            let id = line.trim().parse();
            let wrong = |_| Error::Usage(format!("{}, line {}: not the id of a message", file.display(), n + 1));
            ids.insert(id.map_err(wrong)?);
        }
    }
    Ok(ids)
}

fn show(rows: &[DayBalance], output: Output) -> u8 {
    let balanced = rows.iter().all(|row| row.balance.is_balanced());
    match output {
        Output::Json => {
            print::json(&json!({"balanced": balanced, "items": rows.iter().map(row_json).collect::<Vec<_>>()}));
        }
        Output::Text => {
            let head = ["accepted", "completed", "partial", "failed", "canceled", "in flight"];
            let head = head.map(|name| format!("{name:>10}")).concat();
            anstream::println!("{}", print::paint(print::DIM, &format!("{:<10} {:<20}{head}", "day", "partner")));
            for row in rows {
                let b = &row.balance;
                let m = &b.messages;
                let figures = [b.accepted, m.completed, m.partial, m.failed, m.canceled, m.in_flight];
                let figures = figures.map(|n| format!("{n:>10}")).concat();
                let verdict = match b.is_balanced() {
                    true => String::new(),
                    false => print::paint(
                        print::BAD,
                        &format!(
                            "  {} without deliveries, {} without a message",
                            b.without_deliveries, b.without_message
                        ),
                    ),
                };
                anstream::println!("{} {:<20}{figures}{verdict}", row.day, print::printable(&row.name));
            }
            if balanced {
                anstream::println!("balanced");
            }
        }
    }
    u8::from(!balanced)
}

fn row_json(row: &DayBalance) -> Value {
    let (b, s) = (&row.balance, &row.settled);
    let (m, d) = (&b.messages, &b.deliveries);
    json!({
        "partnerId": row.partner_id.to_string(), "partner": row.name, "day": row.day, "timeZone": row.time_zone,
        "balanced": b.is_balanced(),
        "messages": {"accepted": b.accepted, "completed": m.completed, "partial": m.partial, "failed": m.failed,
            "canceled": m.canceled, "inFlight": m.in_flight},
        "deliveries": {"total": d.sum(), "sent": d.sent, "delivered": d.delivered, "failed": d.failed,
            "expired": d.expired, "canceled": d.canceled, "undetermined": d.undetermined, "inFlight": d.in_flight},
        "withoutDeliveries": b.without_deliveries, "withoutMessage": b.without_message,
        "settled": {"total": s.total, "success": s.success, "failed": s.failed, "undetermined": s.undetermined()},
    })
}

fn show_acknowledged(acknowledged: &Acknowledged, output: Output) -> u8 {
    let lost = acknowledged.missing.len() + acknowledged.without_deliveries.len();
    let m = &acknowledged.endings;
    let texts = |ids: &[Tsid]| ids.iter().take(limits::LEDGER_MISSING).map(Tsid::to_string).collect::<Vec<_>>();
    match output {
        Output::Json => print::json(&json!({
            "acknowledged": acknowledged.ids, "completed": m.completed, "partial": m.partial, "failed": m.failed,
            "canceled": m.canceled, "inFlight": m.in_flight, "missing": acknowledged.missing.len(),
            "withoutDeliveries": acknowledged.without_deliveries.len(), "missingIds": texts(&acknowledged.missing),
            "withoutDeliveriesIds": texts(&acknowledged.without_deliveries),
        })),
        Output::Text => {
            anstream::println!(
                "{} acknowledged: {} completed, {} partial, {} failed, {} canceled, {} in flight, {} missing",
                acknowledged.ids,
                m.completed,
                m.partial,
                m.failed,
                m.canceled,
                m.in_flight,
                acknowledged.missing.len()
            );
            texts(&acknowledged.missing).iter().for_each(|id| anstream::println!("{id} is not in the database"));
            texts(&acknowledged.without_deliveries).iter().for_each(|id| anstream::println!("{id} has no deliveries"));
        }
    }
    u8::from(lost > 0)
}
