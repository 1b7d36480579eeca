//! `notihub simulate`: the providers' simulators alone, for developing against them.

use clap::Args;
use serde_json::json;

use super::{Output, print};
use crate::error::Result;
use crate::provider::simulator::{slack::SlackSimulator, smtp::SmtpSimulator};
use crate::shutdown::{Shutdown, signalled};

#[derive(Debug, Args)]
#[command(after_help = "What arrived:      curl -s http://127.0.0.1:8025/_records\nWhat comes next:   curl -s \
http://127.0.0.1:8025/_script -d '{\"do\": \"fail\", \"status\": 451, \"text\": \"4.3.0 later\", \"times\": 2}'\n\"do\" is one \
of ok, fail, hang, limit, cut, cut_before, garbage. E-mails to bounce@, greylist@, full@ and cut@ behave as they are called.")]
pub struct Simulate {
    /// Slack's incoming webhooks, and what it got under /_records.
    #[arg(long, default_value_t = 8081, value_name = "PORT")]
    slack_port: u16,
    /// An SMTP server.
    #[arg(long, default_value_t = 2525, value_name = "PORT")]
    smtp_port: u16,
    /// What the SMTP server got, under /_records.
    #[arg(long, default_value_t = 8025, value_name = "PORT")]
    smtp_control_port: u16,
}

pub async fn run(args: Simulate, output: Output) -> Result<u8> {
    let shutdown = Shutdown::new();
    let slack = SlackSimulator::start(args.slack_port, &shutdown).await?;
    let smtp = SmtpSimulator::start(args.smtp_port, args.smtp_control_port, &shutdown).await?;
    match output {
        Output::Json => print::json(&json!({
            "slackHook": slack.hook("ops"),
            "slackRecords": format!("http://{}/_records", slack.address()),
            "smtp": smtp.address().to_string(),
            "smtpRecords": format!("http://{}/_records", smtp.control()),
        })),
        Output::Text => anstream::println!(
            "slack   {}\n        got: http://{}/_records\nsmtp    {}\n        got: http://{}/_records\n\nFor a hub:\n  notihub up \
             --slack-destination ops={} --smtp-host {} --smtp-port {} --smtp-tls none",
            slack.hook("ops"),
            slack.address(),
            smtp.address(),
            smtp.control(),
            slack.hook("ops"),
            smtp.address().ip(),
            smtp.address().port(),
        ),
    }
    signalled().await;
    shutdown.stop();
    Ok(u8::from(!shutdown.drained(std::time::Duration::from_secs(5)).await))
}
