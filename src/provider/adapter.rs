//! Adapters by name: what `--provider` can make an account of. One line each.

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

/// Adding a vendor: its file, and its line here.
pub const ADAPTERS: &[Adapter] = &[
    super::kakaotalk::ADAPTER,
    super::sms::ADAPTER,
    super::solapi::ADAPTER,
    super::nhn_sms::ADAPTER,
    super::nhn_alimtalk::ADAPTER,
    super::nhn_rcs::ADAPTER,
    super::talktalk::ADAPTER,
    super::gateway::ADAPTER,
    super::mock::ADAPTER,
];

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

/// An account as the settings describe it.
pub fn make(settings: &ProviderSettings, common: &Common) -> Result<Account> {
    let adapter = ADAPTERS.iter().find(|a| a.name == settings.adapter).ok_or_else(|| {
        let known: Vec<&str> = ADAPTERS.iter().map(|a| a.name).collect();
        let (name, adapter) = (&settings.name, &settings.adapter);
        Error::Usage(format!("provider '{name}': there is no adapter '{adapter}'; there are {}", known.join(", ")))
    })?;
    let mut options = Options::new(settings);
    if let Some((option, _)) = settings.options.iter().find(|(_, value)| value.trim().is_empty()) {
        return Err(options.wrong(&format!("the option {option} is empty")));
    }
    let terms = options.terms()?;
    let provider = (adapter.make)(&mut options, common)?;
    options.close()?;
    Ok(Account::new(provider, terms))
}

#[cfg(test)]
mod tests {
    use super::super::simulator::testing::{BUDGET, rustls_provider};
    use super::*;

    /// A value for each option there is.
    fn value(adapter: &str, option: &str) -> &'static str {
        match option {
            "channels" if adapter == "kakaotalk" => "KAKAO_ALIMTALK",
            "channels" => "SMS",
            "base-url" | "url" => "https://vendor.example.com",
            "from" | "chatbot-id" => "02-930-2266",
            "secret" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "weight" | "limit-burst" | "receipt-hours" => "2",
            "limit" => "5/s",
            "limit-strategy" => "token-bucket",
            "profile" => "internal",
            _ => "0123456789abcdef",
        }
    }

    fn account(adapter: &Adapter, options: &[&'static str]) -> Result<Account> {
        rustls_provider();
        let options = options.iter().map(|o| ((*o).to_owned(), value(adapter.name, o).to_owned())).collect();
        let settings = ProviderSettings { name: "main".to_owned(), adapter: adapter.name.to_owned(), options };
        make(&settings, &Common::within(BUDGET))
    }

    /// What is told of an adapter's options is what it takes: all of them, those called needed, and no other.
    #[test]
    fn options_are_as_they_are_told() {
        for adapter in ADAPTERS {
            let all: Vec<&str> = adapter.options.iter().chain(OPTIONS).map(|(name, _)| *name).collect();
            let made = account(adapter, &all).unwrap();
            assert!(!made.capabilities.is_empty(), "{}", adapter.name);
            assert_eq!((made.terms.weight, made.terms.profile), (2, Some(Profile::Internal)));
            let error = account(adapter, &[&all[..], &["colour"]].concat()).err().unwrap().to_string();
            assert!(error.contains("there is no option 'colour'"), "{error}");
            for (option, about) in adapter.options {
                let without: Vec<&str> = all.iter().copied().filter(|o| o != option).collect();
                let needed = about.ends_with("; needed") || adapter.name == "mock";
                assert_eq!(account(adapter, &without).is_err(), needed, "{} without {option}", adapter.name);
            }
        }
    }

    #[test]
    fn what_is_empty_is_refused_and_what_stands_twice_counts_once() {
        let made = |option: &str, value: &str| {
            let mut options = BTreeMap::from([("channels".to_owned(), "LMS+SMS".to_owned())]);
            options.insert(option.to_owned(), value.to_owned());
            let settings = ProviderSettings { name: "main".to_owned(), adapter: "mock".to_owned(), options };
            make(&settings, &Common::within(BUDGET))
        };
        for option in ["channels", "weight"] {
            let error = made(option, " ").err().unwrap().to_string();
            assert!(error.contains(&format!("the option {option} is empty")), "{error}");
        }
        let twice = made("channels", "SMS+LMS+SMS").unwrap();
        let channels: Vec<Channel> = twice.capabilities.iter().map(|c| c.channel).collect();
        assert_eq!((channels, twice.provider.name()), (vec![Channel::Sms, Channel::Lms], "main"));
    }

    #[test]
    fn an_adapter_that_is_not_there_is_told_with_those_that_are() {
        let settings = ProviderSettings { name: "x".to_owned(), adapter: "y".to_owned(), options: BTreeMap::default() };
        let error = make(&settings, &Common::within(BUDGET)).err().unwrap().to_string();
        assert!(error.contains("there is no adapter 'y'") && error.contains("nhn-alimtalk"), "{error}");
    }
}
