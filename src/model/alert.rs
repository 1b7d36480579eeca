//! What operators are told of: causes, and the words for them. Each is told once when it comes and once when it is over.

use std::fmt;
use std::time::Duration;

use super::channel::Channel;

/// Something that a person should know of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// A provider does not work: its breaker is open (S1-43).
    Outage { provider: String },
    /// A provider will not serve us until somebody does something there: our credentials, or our balance (S1-48).
    Refused { provider: String },
    /// As much of a provider's limit is used as is worth knowing (S1-44).
    Limit { provider: String },
    /// Messages go out over another channel than they were meant for (S1-45).
    Fallback { from: Channel, to: Channel },
    /// A provider tells of messages that nobody here knows.
    Unmatched { provider: String },
}

/// The kinds of causes, and for how long one must not have been seen to be over.
pub const KINDS: [(&str, Duration); 5] = [
    ("outage", Duration::from_secs(30)),
    ("refused", Duration::from_secs(30)),
    ("limit", Duration::from_secs(120)),
    ("fallback", Duration::from_secs(600)),
    ("unmatched", Duration::from_secs(120)),
];

/// The key under which it is open once.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Outage { provider } => write!(f, "outage:{provider}"),
            Cause::Refused { provider } => write!(f, "refused:{provider}"),
            Cause::Limit { provider } => write!(f, "limit:{provider}"),
            Cause::Fallback { from, to } => write!(f, "fallback:{from}:{to}"),
            Cause::Unmatched { provider } => write!(f, "unmatched:{provider}"),
        }
    }
}

impl Cause {
    /// From its key.
    pub fn parse(key: &str) -> Option<Cause> {
        let (kind, rest) = key.split_once(':')?;
        let provider = rest.to_owned();
        Some(match kind {
            "outage" => Cause::Outage { provider },
            "refused" => Cause::Refused { provider },
            "limit" => Cause::Limit { provider },
            "unmatched" => Cause::Unmatched { provider },
            "fallback" => {
                let (from, to) = rest.split_once(':')?;
                Cause::Fallback { from: from.parse().ok()?, to: to.parse().ok()? }
            }
            _ => return None,
        })
    }

    /// In a line.
    pub fn title(&self) -> String {
        match self {
            Cause::Outage { provider } => format!("Provider {provider} is down"),
            Cause::Refused { provider } => format!("Provider {provider} refuses us"),
            Cause::Limit { provider } => format!("Provider {provider} is near its limit"),
            Cause::Fallback { from, to } => format!("{from} falls back to {to}"),
            Cause::Unmatched { provider } => format!("Provider {provider} tells of messages nobody knows"),
        }
    }

    /// What it means, and what to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Cause::Outage { .. } => {
                "It is not asked while this lasts, but for a probe now and then. Messages wait, or go by another provider or \
                 channel where there is one. Nothing is lost. `notihub provider list` shows how it stands."
            }
            Cause::Refused { .. } => {
                "Nothing will be taken until somebody corrects our key, or our balance, there. Messages wait, none is lost. \
                 `notihub provider list` shows how it stands; it is probed now and then, so nothing has to be done here."
            }
            Cause::Limit { .. } => {
                "What exceeds the limit waits its turn. If that is too slow: a higher limit at the provider, a second account, \
                 or fewer messages."
            }
            Cause::Fallback { .. } => {
                "This may cost more. `notihub status MESSAGE` tells of any message why it went the other way."
            }
            Cause::Unmatched { .. } => {
                "Does another installation send under the same account, or was the database restored? They are kept and tried \
                 again."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_again_by_its_key() {
        let provider = || "nhn.main".to_owned();
        for cause in [
            Cause::Outage { provider: provider() },
            Cause::Refused { provider: provider() },
            Cause::Limit { provider: provider() },
            Cause::Fallback { from: Channel::KakaoAlimtalk, to: Channel::Sms },
            Cause::Unmatched { provider: provider() },
        ] {
            let key = cause.to_string();
            assert!(KINDS.iter().any(|(kind, _)| key.split(':').next() == Some(*kind)), "{key}");
            assert_eq!(Cause::parse(&key), Some(cause));
        }
        assert_eq!(Cause::parse("fallback:SMS"), None);
    }
}
