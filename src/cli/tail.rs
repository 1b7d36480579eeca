//! `notihub tail`: follows messages, a line whenever one's status changes.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Target};
use super::{Output, print};
use crate::error::Result;
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
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=200))]
    lines: u8,
    /// Show the latest and exit.
    #[arg(long)]
    no_follow: bool,
}

pub async fn run(args: Tail, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let mut filter = String::new();
    for (name, value) in [("type", &args.kind), ("channel", &args.channel)] {
        if let Some(value) = value {
            let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            filter.push_str(&format!("&{name}={value}"));
        }
    }
    let mut shown: HashMap<String, String> = HashMap::new();
    let mut limit = u32::from(args.lines);
    let mut stop = std::pin::pin!(signalled());
    loop {
        let page = client.get(&format!("/v1/messages?limit={limit}{filter}")).await?;
        let mut now = HashMap::new();
        for item in page["items"].as_array().into_iter().flatten().rev() {
            let (id, status) = (text(&item["messageId"]), text(&item["status"]));
            if shown.get(&id) != Some(&status) {
                line(item, output);
            }
            now.insert(id, status);
        }
        // Only the page's messages are followed: what scrolled out of it is no longer news.
        shown = now;
        limit = 200;
        if args.no_follow {
            return Ok(0);
        }
        if page["items"].as_array().is_some_and(|items| items.len() < usize::from(args.lines)) {
            limit = 200;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => (),
            () = &mut stop => return Ok(0),
        }
    }
}

fn text(value: &Value) -> String {
    print::printable(value.as_str().unwrap_or_default())
}

fn line(item: &Value, output: Output) {
    match output {
        Output::Json => print::json(item),
        Output::Text => anstream::println!(
            "{} {} {:<20} {:<10} {}",
            print::paint(print::DIM, text(&item["createdAt"]).get(..19).unwrap_or_default()),
            text(&item["messageId"]),
            text(&item["type"]),
            print::status(&text(&item["status"])),
            text(&item["title"]),
        ),
    }
}
