//! Alerts to operators, and the log.

use clap::{Args, ValueEnum};

/// Settings of alerts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Alerts")]
pub struct Alerts {
    /// Slack destination for alerts to operators: a provider fails, refuses the account or is near its limit, or
    /// messages use a fallback. Each alert is sent once when it begins and once when it is over [default: alerts are
    /// only logged].
    #[arg(long, env = "NOTIHUB_ALERT_SLACK", value_name = "NAME")]
    pub alert_slack: Option<String>,
    /// E-mail addresses that get the same alerts. Separate several with commas.
    #[arg(long, env = "NOTIHUB_ALERT_EMAIL", value_delimiter = ',', value_name = "ADDRESS", value_parser = mailbox)]
    pub alert_email: Vec<String>,
}

fn mailbox(text: &str) -> Result<String, String> {
    if crate::model::intake::is_mailbox(text) { Ok(text.to_owned()) } else { Err("not an e-mail address".into()) }
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct Log {
    /// Log level: error, warn, info, debug or trace; or by module, as in info,notihub::worker=debug.
    #[arg(long, env = "NOTIHUB_LOG", default_value = "info,sqlx::postgres::notice=warn", value_name = "LEVEL")]
    pub log: String,
    /// Format of the log [default: text on a terminal, otherwise json].
    #[arg(long, env = "NOTIHUB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}
