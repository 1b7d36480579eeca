//! All adapters, by name: what `--provider` can build an account of.

use crate::config::ProviderSettings;
use crate::error::{Error, Result};

use super::Account;
use super::adapter::Adapter;
use super::http::ClientSettings;

/// A new vendor needs its file, and its line here.
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

/// Builds the account that these settings describe.
///
/// # Errors
/// `Error::Usage` if there is no such adapter, or if an option is wrong. `Error::Setup` if no HTTP client can be built.
pub fn build_account(settings: &ProviderSettings, common: &ClientSettings) -> Result<Account> {
    let adapter = ADAPTERS.iter().find(|a| a.name == settings.adapter).ok_or_else(|| {
        let known: Vec<&str> = ADAPTERS.iter().map(|a| a.name).collect();
        let (name, adapter) = (&settings.name, &settings.adapter);
        Error::Usage(format!("provider '{name}': there is no adapter '{adapter}'; there are {}", known.join(", ")))
    })?;
    adapter.build_account(settings, common)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::adapter::COMMON_OPTIONS;
    use super::super::simulator::testing::{BUDGET, rustls_provider};
    use super::*;
    use crate::model::channel::Channel;
    use crate::model::retry::Profile;

    /// Returns a valid value of each option.
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
        build_account(&settings, &ClientSettings::with_budget(BUDGET))
    }

    /// An adapter takes exactly the options that it describes, and those called needed are needed.
    #[test]
    fn adapters_take_exactly_the_options_they_describe() {
        for adapter in ADAPTERS {
            let all: Vec<&str> = adapter.options.iter().chain(COMMON_OPTIONS).map(|(name, _)| *name).collect();
            let made = account(adapter, &all).unwrap();
            assert!(!made.capabilities.is_empty(), "{}", adapter.name);
            assert_eq!((made.terms.weight, made.terms.profile), (2, Some(Profile::Internal)));
            let error = account(adapter, &[&all[..], &["colour"]].concat()).err().unwrap().to_string();
            assert!(error.contains("there is no option 'colour'"), "{error}");
            for (option, description) in adapter.options {
                let without: Vec<&str> = all.iter().copied().filter(|o| o != option).collect();
                let needed = description.ends_with("; needed") || adapter.name == "mock";
                assert_eq!(account(adapter, &without).is_err(), needed, "{} without {option}", adapter.name);
            }
        }
    }

    #[test]
    fn empty_option_is_refused_and_repeated_channel_counts_once() {
        let made = |option: &str, value: &str| {
            let mut options = BTreeMap::from([("channels".to_owned(), "LMS+SMS".to_owned())]);
            options.insert(option.to_owned(), value.to_owned());
            let settings = ProviderSettings { name: "main".to_owned(), adapter: "mock".to_owned(), options };
            build_account(&settings, &ClientSettings::with_budget(BUDGET))
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
    fn unknown_adapter_error_lists_the_adapters() {
        let settings = ProviderSettings { name: "x".to_owned(), adapter: "y".to_owned(), options: BTreeMap::default() };
        let error = build_account(&settings, &ClientSettings::with_budget(BUDGET)).err().unwrap().to_string();
        assert!(error.contains("there is no adapter 'y'") && error.contains("nhn-alimtalk"), "{error}");
    }
}
