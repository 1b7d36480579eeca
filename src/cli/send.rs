//! `notihub send`: sends a message from a terminal or a script.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, Target};
use super::{Output, print};
use crate::error::{Error, Result};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  notihub send --email kim@example.com --subject Hi --body 'It works.' --wait\n  notihub \
send --slack ops --body 'deploy done' --type DEPLOY --priority URGENT\n  echo '{\"type\": …}' | notihub send --json -"
)]
pub struct Send {
    #[command(flatten)]
    target: Target,
    /// The type of the message, a word of your own.
    #[arg(long = "type", default_value = "MANUAL", value_name = "TYPE")]
    kind: String,
    /// An e-mail address; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<String>,
    /// The name of a Slack destination; may be given several times.
    #[arg(long, value_name = "NAME")]
    slack: Vec<String>,
    /// A phone number for an SMS; may be given several times.
    #[arg(long, value_name = "NUMBER")]
    sms: Vec<String>,
    /// The subject of an e-mail, or the title.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The text of the message.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// URGENT, NORMAL or BULK.
    #[arg(long, default_value = "NORMAL", value_name = "PRIORITY")]
    priority: String,
    /// Send it at this time or later, for example 2026-12-24T09:00:00+09:00.
    #[arg(long, value_name = "TIME")]
    scheduled_at: Option<String>,
    /// Do not send it from this time on.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Your own id of the message. A message that is posted twice with the same id is stored once.
    #[arg(long, value_name = "ID")]
    client_msg_id: Option<String>,
    /// The whole message as JSON, from a file or - (standard input), instead of the flags above.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Only check whether the message would be accepted.
    #[arg(long)]
    dry_run: bool,
    /// Wait until the status is final and show what happened; exit code 1 unless all deliveries were sent.
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60, value_name = "S")]
    timeout: u64,
}

/// `notihub send`: posts a message and prints its id, or with `--wait` its timeline. Returns the exit code: 1 if the
/// message was not sent completely in time.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers;
/// `Error::Usage` without a recipient; `Error::Setup` if the file cannot be read.
pub async fn run(args: Send, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let body = match &args.json {
        Some(path) => read(path)?,
        None => compose(&args)?,
    };
    let path = if args.dry_run { "/v1/messages?dryRun=true" } else { "/v1/messages" };
    let accepted = client.post(path, &body).await?;
    let id = accepted["messageId"].as_str().unwrap_or_default();
    if args.dry_run || !args.wait {
        match output {
            Output::Json => print::json(&accepted),
            Output::Text if args.dry_run => anstream::println!("the message would be accepted"),
            Output::Text => anstream::println!("{id}"),
        }
        return Ok(0);
    }
    let (message, settled) = client.wait_until_settled(id, Duration::from_secs(args.timeout)).await?;
    match output {
        Output::Json => print::json(&message),
        Output::Text => {
            print::message_with_timeline(&message, &client.get(&format!("/v1/messages/{id}/timeline")).await?)
        }
    }
    Ok(u8::from(!settled || message["status"] != "COMPLETED"))
}

fn read(path: &std::path::Path) -> Result<Value> {
    let unreadable = |e: std::io::Error| Error::Setup(format!("{} cannot be read: {e}", path.display()));
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(unreadable)?
    } else {
        std::fs::read_to_string(path).map_err(unreadable)?
    };
    serde_json::from_str(&text).map_err(|e| Error::Setup(format!("{} is not JSON: {e}", path.display())))
}

fn compose(args: &Send) -> Result<Value> {
    let mut channels = Vec::new();
    for (channel, to) in [("EMAIL", &args.email), ("SLACK", &args.slack), ("SMS", &args.sms)] {
        if !to.is_empty() {
            channels.push(json!({"channel": channel, "to": to}));
        }
    }
    if channels.is_empty() {
        return Err(Error::Usage(
            "no recipient: give --email, --slack or --sms, or the whole message with --json".into(),
        ));
    }
    let mut body = json!({"type": args.kind, "priority": args.priority, "channels": channels});
    let given = [
        ("title", &args.subject),
        ("body", &args.body),
        ("scheduledAt", &args.scheduled_at),
        ("expiresAt", &args.expires_at),
        ("clientMsgId", &args.client_msg_id),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            body[name] = value.clone().into();
        }
    }
    Ok(body)
}
