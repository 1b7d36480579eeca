//! What the hub tells operators: alerts and the log.

use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Alerts")]
pub struct Alerts {
    /// The Slack destination where operators are told, once each, of a provider that is down, refuses us or is near its
    /// limit, of fallbacks, and when it is over [default: only the log tells].
    #[arg(long, env = "NOTIHUB_ALERT_SLACK", value_name = "NAME")]
    pub alert_slack: Option<String>,
    /// E-mail addresses that are told the same. Several with commas.
    #[arg(long, env = "NOTIHUB_ALERT_EMAIL", value_delimiter = ',', value_name = "ADDRESS", value_parser = mailbox)]
    pub alert_email: Vec<String>,
}

fn mailbox(text: &str) -> Result<String, String> {
    if crate::model::intake::is_mailbox(text) {
        Ok(text.to_owned())
    } else {
        Err("that is not an e-mail address".into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct Log {
    /// error, warn, info, debug or trace; or by module, as in info,notihub::worker=debug.
    #[arg(long, env = "NOTIHUB_LOG", default_value = "info,sqlx::postgres::notice=warn", value_name = "LEVEL")]
    pub log: String,
    /// [default: text on a terminal, json otherwise]
    #[arg(long, env = "NOTIHUB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}
