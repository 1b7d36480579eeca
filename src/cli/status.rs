//! `notihub status`: shows a message with its timeline, or one delivery with its calls.

use clap::Args;

use super::client::{Client, Target};
use super::{Output, print};
use crate::error::Result;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  notihub status 0P8MV3S4Y0T1C\n  notihub status 0P8MV3S4Y0T1C-1   one delivery, or \
one webhook, with each call and its response"
)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    /// The id of a message (13 characters) or of a delivery ({messageId}-{no}).
    #[arg(value_name = "MESSAGE|DELIVERY")]
    id: String,
}

/// `notihub status`: prints a message with its timeline, or a delivery with its calls. Returns the exit code.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn run(args: &Status, output: Output) -> Result<u8> {
    let client = Client::operating(&args.target)?;
    let id: String = form_urlencoded::byte_serialize(args.id.as_bytes()).collect();
    if id.contains('-') {
        let delivery = client.get(&format!("/v1/deliveries/{id}")).await?;
        match output {
            Output::Text => print::delivery(&delivery),
            Output::Json => print::json(&delivery),
        }
        return Ok(0);
    }
    let mut message = client.get(&format!("/v1/messages/{id}")).await?;
    let timeline = client.get(&format!("/v1/messages/{id}/timeline")).await?;
    match output {
        Output::Text => print::message_with_timeline(&message, &timeline),
        Output::Json => {
            message["timeline"] = timeline["items"].clone();
            print::json(&message);
        }
    }
    Ok(0)
}
