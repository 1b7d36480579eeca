//! `notihub status`: a message and everything that happened to it.

use clap::Args;

use super::client::{Client, Target};
use super::{Output, print};
use crate::error::Result;

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    /// The message's id, 13 characters.
    #[arg(value_name = "MESSAGE")]
    message: String,
}

pub async fn run(args: &Status, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let mut message = client.get(&format!("/v1/messages/{}", args.message)).await?;
    let timeline = client.get(&format!("/v1/messages/{}/timeline", args.message)).await?;
    match output {
        Output::Text => print::story(&message, &timeline),
        Output::Json => {
            message["timeline"] = timeline["items"].clone();
            print::json(&message);
        }
    }
    Ok(0)
}
