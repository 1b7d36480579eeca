//! Settings of Slack, and of servers with the same interface.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;

/// Settings of Slack.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Slack")]
pub struct Slack {
    /// An incoming webhook, under the name that messages use: NAME=URL. Separate several with commas. The URL is a
    /// secret: give it in the environment or in notihub.toml.
    #[arg(
        long = "slack-destination",
        env = "NOTIHUB_SLACK_DESTINATION",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "NAME=URL",
        value_parser = pair
    )]
    pub slack_destinations: Vec<(String, String)>,
    /// Destinations whose server accepts Slack's requests but answers differently (Mattermost, Rocket.Chat, Discord's
    /// /slack): there any 2xx means accepted. Elsewhere a 2xx that is not one of Slack's answers has an unknown
    /// outcome. Separate several with commas [default: none].
    #[arg(long, env = "NOTIHUB_SLACK_COMPATIBLE", value_delimiter = ',', value_name = "NAME")]
    pub slack_compatible: Vec<String>,
    /// The destination of notifications in the short form, which name only the channel SLACK [default: ops, or the only
    /// one].
    #[arg(long, env = "NOTIHUB_SLACK_DEFAULT", value_name = "NAME")]
    pub slack_default: Option<String>,
}

impl Slack {
    /// The webhook URL of each destination, by name.
    pub fn destinations(&self) -> BTreeMap<String, String> {
        self.slack_destinations.iter().cloned().collect()
    }

    /// The names in --slack-compatible.
    pub fn compatible(&self) -> BTreeSet<String> {
        self.slack_compatible.iter().cloned().collect()
    }

    /// The names of all destinations.
    pub fn names(&self) -> BTreeSet<String> {
        self.slack_destinations.iter().map(|d| d.0.clone()).collect()
    }

    /// The destination of a message that names only the channel; `None`: there is none.
    pub fn default_name(&self) -> Option<String> {
        let names = self.names();
        let ops = || names.contains("ops").then(|| "ops".to_owned());
        let only = || (names.len() == 1).then(|| names.iter().next().cloned()).flatten();
        self.slack_default.clone().or_else(ops).or_else(only)
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or("write NAME=URL")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("a name may have only letters, digits, - _ .".into());
    }
    Ok((name.to_owned(), url.to_owned()))
}
