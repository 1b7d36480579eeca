//! `notihub tail`: follows messages, a line whenever one's status changes.

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
    /// How many of the latest to begin with.
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=limits::PAGE_MAX))]
    lines: u8,
    /// Show the latest and exit.
    #[arg(long)]
    no_follow: bool,
}

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
        async move { Result::<Vec<Value>>::Ok(client.get(&path).await?["items"].as_array().cloned().unwrap_or_default()) }
    };
    let latest = page(FOLLOWED).await?;
    // What lies further back than the lines asked for is known, not news.
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
        // Only the page's messages are followed: what scrolled out of it is no longer news.
        shown = now;
    }
}

/// Messages looked at each second; of more in a second than this, the older are not told.
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
