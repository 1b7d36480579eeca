//! `notihub health`.

use clap::Args;

use super::{Output, client, print};
use crate::error::Result;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 0: ready; 1: not ready, or no answer. Meant for health checks of containers and \
        supervisors.")]
pub struct Health {
    /// The URL of the hub's API.
    #[arg(long, env = "NOTIHUB_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
}

/// `notihub health`: calls `/readyz` once, within five seconds. Returns the exit code.
///
/// # Errors
/// `Error::Setup` if no hub answers.
pub async fn run(args: Health, output: Output) -> Result<u8> {
    let (ready, body) = client::readiness(&args.url).await?;
    match output {
        Output::Json => print::json(&body),
        Output::Text if ready => anstream::println!("ready"),
        Output::Text => anstream::println!("not ready: {}", print::printable(&body.to_string())),
    }
    Ok(u8::from(!ready))
}
