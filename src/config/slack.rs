//! Slack, and servers that take the same posts.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Slack")]
pub struct Slack {
    /// An incoming webhook under the name that messages use: NAME=URL. Several with commas. The URL is a secret: give it
    /// in the environment or in notihub.toml.
    #[arg(long = "slack-destination", env = "NOTIHUB_SLACK_DESTINATION", hide_env_values = true, value_delimiter = ',', value_name = "NAME=URL", value_parser = pair)]
    pub slack_destinations: Vec<(String, String)>,
    /// Destinations whose server takes Slack's posts but answers in its own words (Mattermost, Rocket.Chat, Discord's
    /// /slack): there any 2xx is acceptance. Elsewhere a 2xx that is neither Slack's yes nor its no has an unknown
    /// outcome. Several with commas [default: none].
    #[arg(long, env = "NOTIHUB_SLACK_COMPATIBLE", value_delimiter = ',', value_name = "NAME")]
    pub slack_compatible: Vec<String>,
    /// The destination of notifications in the short form, which name only the channel SLACK [default: ops, or the only one].
    #[arg(long, env = "NOTIHUB_SLACK_DEFAULT", value_name = "NAME")]
    pub slack_default: Option<String>,
}

impl Slack {
    pub fn destinations(&self) -> BTreeMap<String, String> {
        self.slack_destinations.iter().cloned().collect()
    }

    pub fn compatible(&self) -> BTreeSet<String> {
        self.slack_compatible.iter().cloned().collect()
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.slack_destinations.iter().map(|d| d.0.clone()).collect()
    }

    /// Where a message goes that names only the channel.
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
        return Err("a name has letters, digits, - _ . only".into());
    }
    Ok((name.to_owned(), url.to_owned()))
}
