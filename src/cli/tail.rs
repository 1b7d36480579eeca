//! `notihub tail`: prints a line whenever the status of a message changes.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Target};
use super::{Output, print};
use crate::error::Result;
use crate::limits;
use crate::shutdown::signalled;

#[derive(Debug, Args)]
pub struct Tail {
    #[command(flatten)]
    target: Target,
    /// Only messages of this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only messages over this channel.
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// The number of latest messages to begin with.
    #[arg(
        short = 'n',
        long,
        default_value_t = 10,
        value_name = "N",
        value_parser = clap::value_parser!(u8).range(1..=limits::PAGE_MAX)
    )]
    lines: u8,
    /// Show the latest messages and exit.
    #[arg(long)]
    no_follow: bool,
}

/// `notihub tail`: prints the latest messages, then a line for each change of a status, until a signal. Returns the
/// exit code.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn run(args: Tail, output: Output) -> Result<u8> {
    let client = Client::operating(&args.target)?;
    let mut filter = String::new();
    for (name, value) in [("type", &args.kind), ("channel", &args.channel)] {
        if let Some(value) = value {
            let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            filter.push_str(&format!("&{name}={value}"));
        }
    }
    let page = |limit: u32| {
        let (client, path) = (&client, format!("/v1/messages?limit={limit}{filter}"));
        async move {
            let page = client.get(&path).await?;
            Result::<Vec<Value>>::Ok(page["items"].as_array().cloned().unwrap_or_default())
        }
    };
    let latest = page(FOLLOWED).await?;
    // Older messages are remembered without printing them.
    let mut shown: HashMap<String, String> =
        latest.iter().map(|item| (text(&item["messageId"]), text(&item["status"]))).collect();
    latest.iter().take(usize::from(args.lines)).rev().for_each(|item| line(item, output));
    let mut stop = std::pin::pin!(signalled());
    if args.no_follow {
        return Ok(0);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => (),
            () = &mut stop => return Ok(0),
        }
        let items = page(FOLLOWED).await?;
        let now: HashMap<String, String> =
            items.iter().map(|item| (text(&item["messageId"]), text(&item["status"]))).collect();
        let news = items
            .iter()
            .rev()
            .filter(|item| shown.get(&text(&item["messageId"])) != now.get(&text(&item["messageId"])));
        news.for_each(|item| line(item, output));
        // Messages that have left the page are no longer followed.
        shown = now;
    }
}

/// The number of latest messages that are compared each second. If more arrive within a second, the older ones are
/// missed.
const FOLLOWED: u32 = 200;

fn text(value: &Value) -> String {
    print::printable(value.as_str().unwrap_or_default())
}

fn line(item: &Value, output: Output) {
    match output {
        Output::Json => print::json(item),
        Output::Text => anstream::println!(
            "{} {} {:<20} {:<10} {}",
            print::paint(print::DIM, &format!("{}Z", text(&item["createdAt"]).get(..19).unwrap_or_default())),
            text(&item["messageId"]),
            text(&item["type"]),
            print::status(&text(&item["status"])),
            text(&item["title"]),
        ),
    }
}
