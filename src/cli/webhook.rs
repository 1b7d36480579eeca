//! `notihub webhook`: for the developer of a partner's endpoint.

use clap::{Args, Subcommand};

use super::{Output, webhook_listen, webhook_verify};
use crate::error::Result;

#[derive(Debug, Args)]
pub struct WebhookCommand {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Receives webhooks here, verifies and prints them, and answers as told.
    Listen(webhook_listen::Listen),
    /// Verifies one request, pasted as it came: start line, headers, an empty line, body.
    Verify(webhook_verify::Verify),
}

pub async fn run(args: WebhookCommand, output: Output) -> Result<u8> {
    match args.deed {
        Deed::Listen(args) => webhook_listen::run(args, output).await,
        Deed::Verify(args) => webhook_verify::run(args, output),
    }
}
