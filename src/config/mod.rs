//! Every setting: a flag, an environment variable `NOTIHUB_…`, and a line of the same name in `notihub.toml`, in this
//! order of precedence. The doc comments are the manual that `--help` prints. Only this module reads the environment.

mod channels;
mod database;
mod email;
mod environment;
mod file;
mod output;
mod process;
pub mod reference;
mod retry;
mod rooms;
mod slack;
mod users;
mod webhooks;

use clap::Args;

pub use channels::{Channels, ProviderSettings};
pub use database::{Database, data_dir};
pub use email::{Email, EmailKind, SmtpTls};
pub use environment::{is_set, pager, variables};
pub use file::{FileSetting, read_file};
pub use output::{Alerts, Log, LogFormat};
pub use process::{Api, Timing, Work};
pub use retry::{Pauses, Retry};
pub use rooms::Rooms;
pub use slack::Slack;
pub use users::Users;
pub use webhooks::Webhooks;

use crate::error::{Error, Result};
use crate::limits;

/// All settings of a process.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub api: Api,
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub timing: Timing,
    #[command(flatten)]
    pub retry: Retry,
    #[command(flatten)]
    pub email: Email,
    #[command(flatten)]
    pub slack: Slack,
    #[command(flatten)]
    pub webhooks: Webhooks,
    #[command(flatten)]
    pub users: Users,
    #[command(flatten)]
    pub rooms: Rooms,
    #[command(flatten)]
    pub channels: Channels,
    #[command(flatten)]
    pub alerts: Alerts,
    #[command(flatten)]
    pub log: Log,
}

impl Settings {
    /// Settings for a command that takes only database flags: the given ones, and all others from the environment or by
    /// default.
    ///
    /// # Errors
    /// `Error::Usage` if a variable in the environment has a wrong value.
    pub fn with_database(database: Database) -> Result<Settings> {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            settings: Settings,
        }
        let alone = <Alone as clap::Parser>::try_parse_from(["notihub"]);
        let settings = alone.map_err(|e| Error::Usage(format!("a setting in the environment is wrong: {e}")))?.settings;
        Ok(Settings { database, ..settings })
    }

    /// Checks rules between settings. Breaking one would silently lose or duplicate messages, so the process does not
    /// start.
    ///
    /// # Errors
    /// `Error::Usage`, naming the settings that disagree.
    pub fn check(&self) -> Result<()> {
        let t = &self.timing;
        let rule = |holds: bool, text: String| if holds { Ok(()) } else { Err(Error::Usage(text)) };
        rule(
            t.connect_budget_ms <= t.call_budget_ms,
            format!(
                "connect-budget-ms ({}) must not exceed call-budget-ms ({}): connecting is part of the call",
                t.connect_budget_ms, t.call_budget_ms
            ),
        )?;
        rule(
            t.call_budget_ms + t.settle_budget_ms + t.lease_margin_ms + 1000 <= t.lease_ms,
            format!(
                "lease-ms ({}) must be at least a second more than call-budget-ms + settle-budget-ms + lease-margin-ms \
                 ({} + {} + {}); otherwise no call can begin in time, or another worker claims a delivery while \
                 its call still runs",
                t.lease_ms, t.call_budget_ms, t.settle_budget_ms, t.lease_margin_ms
            ),
        )?;
        rule(
            t.shutdown_grace_ms >= t.call_budget_ms + t.settle_budget_ms,
            format!(
                "shutdown-grace-ms ({}) must be at least call-budget-ms + settle-budget-ms ({} + {}); otherwise a \
                 stopping worker abandons calls and their outcomes stay unknown",
                t.shutdown_grace_ms, t.call_budget_ms, t.settle_budget_ms
            ),
        )?;
        let statement_ms = limits::STATEMENT_TIMEOUT.as_millis();
        rule(
            statement_ms < u128::from(t.call_budget_ms),
            format!(
                "call-budget-ms ({}) must exceed the statement time-out ({statement_ms} ms), so that a stuck \
                 database is noticed before a lease runs out",
                t.call_budget_ms
            ),
        )?;
        rule(
            self.retry.retry_multiplier >= 1.0 && self.retry.retry_multiplier <= 100.0,
            format!("retry-multiplier ({}) must be between 1 and 100", self.retry.retry_multiplier),
        )?;
        if let Some(name) = &self.alerts.alert_slack {
            rule(
                self.slack.destinations().contains_key(name),
                format!("alert-slack names '{name}', which slack-destination does not define"),
            )?;
        }
        for name in &self.slack.slack_compatible {
            rule(
                self.slack.names().contains(name),
                format!("slack-compatible names '{name}', which slack-destination does not define"),
            )?;
        }
        if let Some(name) = &self.slack.slack_default {
            rule(
                self.slack.destinations().contains_key(name),
                format!("slack-default names '{name}', which slack-destination does not define"),
            )?;
        }
        Ok(())
    }
}
