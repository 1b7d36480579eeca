//! The form of an adapter, and the options of an account. `registry` lists the adapters there are.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use crate::config::ProviderSettings;
use crate::error::{Error, Result};
use crate::model::capability::Terms;
use crate::model::channel::{AddressKind, Channel};
use crate::model::limit::RateLimit;
use crate::model::retry::Profile;

use super::http::Common;
use super::{Account, Provider};

/// How accounts of one vendor are made.
pub struct Adapter {
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Its own options, beside `OPTIONS`: name, and what it says.
    pub options: &'static [(&'static str, &'static str)],
    pub make: fn(&mut Options, &Common) -> Result<Arc<dyn Provider>>,
}

impl Adapter {
    /// The account that these settings describe. They must name this adapter.
    ///
    /// # Errors
    /// `Error::Usage` if an option is empty, unknown, missing or wrong; its value is not shown, as it may be a secret.
    pub fn account(&self, settings: &ProviderSettings, common: &Common) -> Result<Account> {
        let mut options = Options::new(settings);
        if let Some((option, _)) = settings.options.iter().find(|(_, value)| value.trim().is_empty()) {
            return Err(options.wrong(&format!("the option {option} is empty")));
        }
        let terms = options.terms()?;
        let provider = (self.make)(&mut options, common)?;
        options.close()?;
        Ok(Account::new(provider, terms))
    }
}

/// The options that every account may have.
pub const OPTIONS: &[(&str, &str)] = &[
    ("weight", "its share beside other providers of the channel (1); 0: only when no other can"),
    (
        "limit",
        "how often it may be asked, by all processes together: 100/m (s, m, h or d); sending alone counts, not look-ups or polls",
    ),
    ("limit-strategy", "sliding-window (the default), fixed-window or token-bucket"),
    ("limit-burst", "of a token bucket: how many may come at once (1)"),
    ("profile", "gateway: what may have been sent is not sent again; internal: it is, and also goes by its fallback"),
];

/// The options of one account, taken one after the other; what is left over is nobody's.
pub struct Options {
    name: String,
    left: BTreeMap<String, String>,
    /// Those that were taken, or looked for.
    asked: BTreeSet<String>,
}

impl Options {
    pub fn new(settings: &ProviderSettings) -> Options {
        Options { name: settings.name.clone(), left: settings.options.clone(), asked: BTreeSet::new() }
    }

    /// As the settings name the account.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn wrong(&self, what: &str) -> Error {
        Error::Usage(format!("provider '{}': {what}", self.name))
    }

    pub fn text(&mut self, option: &str) -> Option<String> {
        self.asked.insert(option.to_owned());
        self.left.remove(option)
    }

    pub fn require(&mut self, option: &str) -> Result<String> {
        self.text(option).ok_or_else(|| self.wrong(&format!("it needs the option {option}")))
    }

    /// Its value is not shown when it is wrong: it may be a secret.
    pub fn parsed<T: FromStr>(&mut self, option: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.text(option) else { return Ok(None) };
        text.parse().map(Some).map_err(|e| self.wrong(&format!("the option {option}: {e}")))
    }

    /// A whole number.
    pub fn number(&mut self, option: &str) -> Result<Option<u32>> {
        let Some(text) = self.text(option) else { return Ok(None) };
        let wrong = |_| self.wrong(&format!("the option {option} must be a whole number from 0 to {}", u32::MAX));
        text.parse().map(Some).map_err(wrong)
    }

    /// `channels=SMS+LMS`, of those that the adapter can serve; without the option those it serves by itself.
    pub fn channels_of(&mut self, default: &[Channel], able: &[Channel]) -> Result<Vec<Channel>> {
        if self.left.contains_key("channels") { self.some_of(able) } else { Ok(default.to_vec()) }
    }

    /// `channels=SMS+LMS`, of those that the adapter can serve.
    pub fn some_of(&mut self, able: &[Channel]) -> Result<Vec<Channel>> {
        let channels = self.channels()?;
        let Some(foreign) = channels.iter().find(|channel| !able.contains(channel)) else { return Ok(channels) };
        let able: Vec<&str> = able.iter().map(|channel| channel.as_str()).collect();
        Err(self.wrong(&format!("as it is set up it cannot serve {foreign}, only {}", able.join(", "))))
    }

    /// `channels=SMS+LMS`.
    pub fn channels(&mut self) -> Result<Vec<Channel>> {
        let text = self.require("channels")?;
        let channel = |word: &str| {
            let channel: Channel = word.parse().map_err(|e: String| self.wrong(&e))?;
            if channel.addressed_by() == AddressKind::Unserved {
                return Err(self.wrong(&format!("no message can be sent over {channel} yet")));
            }
            Ok(channel)
        };
        // One that stands twice would count twice: its weight, and its room.
        let mut channels = text.split('+').map(channel).collect::<Result<Vec<Channel>>>()?;
        let mut seen = BTreeSet::new();
        channels.retain(|channel| seen.insert(*channel));
        Ok(channels)
    }

    /// Those that every account may have.
    fn terms(&mut self) -> Result<Terms> {
        let mut terms = Terms::default();
        if let Some(weight) = self.number("weight")? {
            terms.weight = weight;
        }
        terms.limit = self.parsed::<RateLimit>("limit")?;
        let (strategy, burst) = (self.parsed("limit-strategy")?, self.number("limit-burst")?);
        if let Some(limit) = &mut terms.limit {
            limit.strategy = strategy.unwrap_or(limit.strategy);
            limit.burst = burst.unwrap_or(limit.burst);
        } else if strategy.is_some() || burst.is_some() {
            return Err(self.wrong("limit-strategy and limit-burst say how a limit is kept; give limit, too"));
        }
        terms.profile = self.parsed::<Profile>("profile")?;
        Ok(terms)
    }

    fn close(self) -> Result<()> {
        let Some(option) = self.left.keys().next() else { return Ok(()) };
        let known: Vec<&str> = self.asked.iter().map(String::as_str).collect();
        Err(self.wrong(&format!(
            "there is no option '{option}' for it; there are {}. (A setting of the hub stands above the first [provider.…] \
             of the file.)",
            known.join(", ")
        )))
    }
}
