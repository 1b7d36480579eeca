//! What describes an adapter, and the options of one account. `registry` lists all adapters.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use crate::config::ProviderSettings;
use crate::error::{Error, Result};
use crate::model::capability::Terms;
use crate::model::channel::{AddressKind, Channel};
use crate::model::limit::RateLimit;
use crate::model::retry::Profile;

use super::http::ClientSettings;
use super::{Account, Provider};

/// One kind of provider: its name, its options, and how an account is built from them.
pub struct Adapter {
    /// The name that settings use.
    pub name: &'static str,
    /// One line about it, for the documentation.
    pub description: &'static str,
    /// Its own options beside `COMMON_OPTIONS`: name and description. A description that ends with `; needed` marks an
    /// option without which the account cannot be built.
    pub options: &'static [(&'static str, &'static str)],
    pub build: fn(&mut Options, &ClientSettings) -> Result<Arc<dyn Provider>>,
}

impl Adapter {
    /// Builds the account that these settings describe. They must name this adapter.
    ///
    /// # Errors
    /// `Error::Usage` if an option is empty, unknown, missing or wrong. The text does not show its value, which may be
    /// a secret. `Error::Setup` if no HTTP client can be built.
    pub fn build_account(&self, settings: &ProviderSettings, common: &ClientSettings) -> Result<Account> {
        let mut options = Options::new(settings);
        if let Some((option, _)) = settings.options.iter().find(|(_, value)| value.trim().is_empty()) {
            return Err(options.usage_error(&format!("the option {option} is empty")));
        }
        let terms = options.common_terms()?;
        let provider = (self.build)(&mut options, common)?;
        options.reject_unknown()?;
        Ok(Account::new(provider, terms))
    }
}

/// The options that every account may have: name and description.
pub const COMMON_OPTIONS: &[(&str, &str)] = &[
    (
        "weight",
        "its share of the channel's messages beside other providers (1); 0: used only when no other provider can",
    ),
    (
        "limit",
        "how many requests all processes together may send: 100/m (per s, m, h or d); look-ups and polls do not count",
    ),
    ("limit-strategy", "sliding-window (the default), fixed-window or token-bucket"),
    ("limit-burst", "token-bucket only: how many requests may be sent at once (1)"),
    (
        "profile",
        "gateway: a message that may have been sent is not sent again; internal: it is, and so is its fallback",
    ),
];

/// The options of one account. An adapter takes out those it knows; whatever remains at the end is refused as unknown.
pub struct Options {
    name: String,
    remaining: BTreeMap<String, String>,
    /// The names that the adapter asked for: all it knows.
    known: BTreeSet<String>,
}

impl Options {
    /// Copies the options out of an account's settings.
    pub fn new(settings: &ProviderSettings) -> Options {
        Options { name: settings.name.clone(), remaining: settings.options.clone(), known: BTreeSet::new() }
    }

    /// The name that the settings give the account.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes an `Error::Usage` that names the account. `what` says what is wrong, and must not show an option's value.
    pub fn usage_error(&self, problem: &str) -> Error {
        Error::Usage(format!("provider '{}': {problem}", self.name))
    }

    /// Takes out an option's text, or returns `None` if it is not set.
    pub fn optional(&mut self, option: &str) -> Option<String> {
        self.known.insert(option.to_owned());
        self.remaining.remove(option)
    }

    /// Takes out an option's text.
    ///
    /// # Errors
    /// `Error::Usage` if the option is not set.
    pub fn require(&mut self, option: &str) -> Result<String> {
        self.optional(option).ok_or_else(|| self.usage_error(&format!("it needs the option {option}")))
    }

    /// Takes out an option and parses it. Returns `None` if it is not set.
    ///
    /// # Errors
    /// `Error::Usage` with the parser's error, if the text cannot be parsed.
    pub fn optional_parsed<T: FromStr>(&mut self, option: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.optional(option) else { return Ok(None) };
        text.parse().map(Some).map_err(|e| self.usage_error(&format!("the option {option}: {e}")))
    }

    /// Takes out an option that is a whole number. Returns `None` if it is not set.
    ///
    /// # Errors
    /// `Error::Usage` if it is not a whole number that fits into 32 bits.
    pub fn optional_number(&mut self, option: &str) -> Result<Option<u32>> {
        let Some(text) = self.optional(option) else { return Ok(None) };
        let wrong = |_| self.usage_error(&format!("the option {option} must be a whole number from 0 to {}", u32::MAX));
        text.parse().map(Some).map_err(wrong)
    }

    /// Takes out `channels=SMS+LMS`; returns `default` if it is not set.
    ///
    /// # Errors
    /// Those of [`Options::channels_among`].
    pub fn channels_or(&mut self, default: &[Channel], supported: &[Channel]) -> Result<Vec<Channel>> {
        if self.remaining.contains_key("channels") { self.channels_among(supported) } else { Ok(default.to_vec()) }
    }

    /// Takes out `channels=SMS+LMS`, all of which must be among `supported`, the channels that the account can serve.
    ///
    /// # Errors
    /// `Error::Usage` if a channel is not among `supported`, and those of [`Options::channels`].
    pub fn channels_among(&mut self, supported: &[Channel]) -> Result<Vec<Channel>> {
        let channels = self.channels()?;
        let Some(unsupported) = channels.iter().find(|channel| !supported.contains(channel)) else {
            return Ok(channels);
        };
        let supported: Vec<&str> = supported.iter().map(|channel| channel.as_str()).collect();
        Err(self.usage_error(&format!("as it is set up it cannot serve {unsupported}, only {}", supported.join(", "))))
    }

    /// Takes out `channels=SMS+LMS`: one or more channels in their order, each once.
    ///
    /// # Errors
    /// `Error::Usage` if the option is not set, or names a channel that does not exist or has no address kind yet.
    pub fn channels(&mut self) -> Result<Vec<Channel>> {
        let text = self.require("channels")?;
        let channel = |name: &str| {
            let channel: Channel = name.parse().map_err(|e: String| self.usage_error(&e))?;
            if channel.addressed_by() == AddressKind::Unserved {
                return Err(self.usage_error(&format!("no message can be sent over {channel} yet")));
            }
            if channel.ends_in_hub() {
                return Err(self.usage_error(&format!("{channel} needs no account: the hub itself serves it")));
            }
            Ok(channel)
        };
        // A channel that is named twice would count twice: in the account's weight and in its concurrency.
        let mut channels = text.split('+').map(channel).collect::<Result<Vec<Channel>>>()?;
        let mut seen = BTreeSet::new();
        channels.retain(|channel| seen.insert(*channel));
        Ok(channels)
    }

    /// Takes out `COMMON_OPTIONS`.
    fn common_terms(&mut self) -> Result<Terms> {
        let mut terms = Terms::default();
        if let Some(weight) = self.optional_number("weight")? {
            terms.weight = weight;
        }
        terms.limit = self.optional_parsed::<RateLimit>("limit")?;
        let (strategy, burst) = (self.optional_parsed("limit-strategy")?, self.optional_number("limit-burst")?);
        if let Some(limit) = &mut terms.limit {
            limit.strategy = strategy.unwrap_or(limit.strategy);
            limit.burst = burst.unwrap_or(limit.burst);
        } else if strategy.is_some() || burst.is_some() {
            return Err(self.usage_error("limit-strategy and limit-burst say how a limit is kept; give limit, too"));
        }
        terms.profile = self.optional_parsed::<Profile>("profile")?;
        Ok(terms)
    }

    /// Refuses options that no one asked for, with the list of those there are.
    fn reject_unknown(self) -> Result<()> {
        let Some(unknown) = self.remaining.keys().next() else { return Ok(()) };
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        Err(self.usage_error(&format!(
            "there is no option '{unknown}' for it; there are {}. (A setting of the hub stands above the first \
             [provider.…] of the file.)",
            known.join(", ")
        )))
    }
}
