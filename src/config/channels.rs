//! The other channels: accounts at vendors, and fallback rules.

use std::collections::BTreeMap;

use clap::Args;

use crate::model::channel::{AddressKind, Channel};

/// Settings of vendor accounts, logged channels and fallback rules.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Other channels")]
pub struct Channels {
    /// A provider account, under the name that attempts and metrics show: NAME=ADAPTER[,OPTION=VALUE…]. Give one flag
    /// for each account; in the environment, separate accounts with semicolons; in notihub.toml, each account is a
    /// table [provider.NAME] with adapter and options as its lines, which is the place for secrets. `notihub provider
    /// adapters` lists adapters and options. Accounts of one channel share its traffic by weight (weight=2) and replace
    /// each other when one fails. Every account takes limit=100/m,
    /// limit-strategy=sliding-window|fixed-window|token-bucket, limit-burst=N, profile=gateway|internal.
    #[arg(
        long = "provider",
        env = "NOTIHUB_PROVIDER",
        hide_env_values = true,
        value_delimiter = ';',
        value_name = "NAME=ADAPTER",
        value_parser = provider
    )]
    pub providers: Vec<ProviderSettings>,
    /// Channels whose messages are only logged, without personal data. Separate several with commas [default: none;
    /// `up` starts simulators for channels that have no provider and are not listed here].
    #[arg(long, env = "NOTIHUB_MOCK", value_delimiter = ',', value_name = "CHANNEL", value_parser = mockable)]
    pub mock: Vec<Channel>,
    /// Fallback for messages that do not name one: KAKAO_ALIMTALK=SMS sends by SMS, to the same number, what Kakao did
    /// not accept, if the body fits. Separate several with commas. A message's own `fallback` has precedence; `[]`
    /// there means none [default: none].
    #[arg(
        long = "fallback",
        env = "NOTIHUB_FALLBACK",
        value_delimiter = ',',
        value_name = "CHANNEL=CHANNEL",
        value_parser = stand_by
    )]
    pub fallbacks: Vec<(Channel, Channel)>,
}

/// One provider account.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    pub name: String,
    pub adapter: String,
    pub options: BTreeMap<String, String>,
}

/// Shows only the names of the options: their values may be secrets.
impl std::fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={},{:?}", self.name, self.adapter, self.options.keys())
    }
}

fn provider(text: &str) -> Result<ProviderSettings, String> {
    let (name, rest) = text.trim().split_once('=').ok_or("write NAME=ADAPTER,OPTION=VALUE,…")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("a name may have only letters, digits, - _ .".into());
    }
    // The form of a table in the file: JSON, in which any value can be written.
    if rest.starts_with('{') {
        let mut options: BTreeMap<String, String> =
            serde_json::from_str(rest).map_err(|_| "the table cannot be read")?;
        let adapter = adapter(&options.remove("adapter").ok_or("the line adapter = \"…\" is missing")?)?;
        return Ok(ProviderSettings { name: name.to_owned(), adapter, options });
    }
    let mut parts = rest.split(',');
    let adapter = adapter(parts.next().unwrap_or_default())?;
    let mut options = BTreeMap::new();
    for part in parts {
        let (option, value) = part
            .split_once('=')
            .ok_or("write an option as OPTION=VALUE; put a value with a comma into notihub.toml")?;
        if options.insert(option.to_owned(), value.to_owned()).is_some() {
            return Err("an option is given twice".into());
        }
    }
    Ok(ProviderSettings { name: name.to_owned(), adapter, options })
}

/// Reads an adapter's name. If it was left out, the text is an option and may be a secret, so no error quotes it.
fn adapter(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(
            "after the name comes an adapter (`notihub provider adapters` lists them): NAME=ADAPTER,OPTION=VALUE,…",
        );
    }
    Ok(text.to_owned())
}

fn mockable(text: &str) -> Result<Channel, String> {
    let channel: Channel = text.parse()?;
    if channel.addressed_by() == AddressKind::Unserved {
        return Err(format!("no message can be sent over {channel} yet"));
    }
    if channel.ends_in_hub() {
        return Err(format!("{channel} needs no mock: the hub itself serves it"));
    }
    Ok(channel)
}

fn stand_by(text: &str) -> Result<(Channel, Channel), String> {
    let (first, other) = text.split_once('=').ok_or("write CHANNEL=CHANNEL, as in KAKAO_ALIMTALK=SMS")?;
    let (first, other): (Channel, Channel) = (first.parse()?, other.parse()?);
    if first == other || first.addressed_by() != other.addressed_by() {
        return Err(format!("{other} cannot replace {first}: choose another channel with the same kind of address"));
    }
    Ok((first, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_account_error_shows_no_secret() {
        for wrong in [
            "main=api-secret=SECRET",
            "main=,api-secret=SECRET",
            "main=SECRET",
            r#"main={"adapter":"api-secret=SECRET"}"#,
            r#"main={"api-secret":"SECRET"}"#,
            "main=solapi,SECRET",
            "main=solapi,api-secret=a,api-secret=SECRET",
            "SECRET",
        ] {
            let error = provider(wrong).unwrap_err();
            assert!(!error.contains("SECRET"), "{wrong}: {error}");
        }
        let twice = provider("main=solapi,a=1,a=1").unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
        let good = provider("main=nhn-sms,a=1,b=x=y").unwrap();
        assert_eq!((good.name.as_str(), good.adapter.as_str(), good.options["b"].as_str()), ("main", "nhn-sms", "x=y"));
    }
}
