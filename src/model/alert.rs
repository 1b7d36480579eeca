//! What operators are told of: causes, and the words for them. Each is told once when it comes and once when it is over.

use std::fmt;
use std::time::Duration;

use super::channel::Channel;

/// Something that a person should know of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertCause {
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
pub const ALERT_KINDS: [(&str, Duration); 5] = [
    ("outage", Duration::from_secs(30)),
    ("refused", Duration::from_secs(30)),
    ("limit", Duration::from_secs(120)),
    ("fallback", Duration::from_secs(600)),
    ("unmatched", Duration::from_secs(120)),
];

/// The key under which it is open once.
impl fmt::Display for AlertCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlertCause::Outage { provider } => write!(f, "outage:{provider}"),
            AlertCause::Refused { provider } => write!(f, "refused:{provider}"),
            AlertCause::Limit { provider } => write!(f, "limit:{provider}"),
            AlertCause::Fallback { from, to } => write!(f, "fallback:{from}:{to}"),
            AlertCause::Unmatched { provider } => write!(f, "unmatched:{provider}"),
        }
    }
}

impl AlertCause {
    /// From its key.
    pub fn parse(key: &str) -> Option<AlertCause> {
        let (kind, rest) = key.split_once(':')?;
        let provider = rest.to_owned();
        Some(match kind {
            "outage" => AlertCause::Outage { provider },
            "refused" => AlertCause::Refused { provider },
            "limit" => AlertCause::Limit { provider },
            "unmatched" => AlertCause::Unmatched { provider },
            "fallback" => {
                let (from, to) = rest.split_once(':')?;
                AlertCause::Fallback { from: from.parse().ok()?, to: to.parse().ok()? }
            }
            _ => return None,
        })
    }

    /// In a line.
    pub fn title(&self) -> String {
        match self {
            AlertCause::Outage { provider } => format!("Provider {provider} is down"),
            AlertCause::Refused { provider } => format!("Provider {provider} refuses us"),
            AlertCause::Limit { provider } => format!("Provider {provider} is near its limit"),
            AlertCause::Fallback { from, to } => format!("{from} falls back to {to}"),
            AlertCause::Unmatched { provider } => format!("Provider {provider} tells of messages nobody knows"),
        }
    }

    /// What it means, and what to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            AlertCause::Outage { .. } => {
                "It is not asked while this lasts, but for a probe now and then. Messages wait, or go by another provider or \
                 channel where there is one. Nothing is lost. `notihub provider list` shows how it stands."
            }
            AlertCause::Refused { .. } => {
                "Nothing will be taken until somebody corrects our key, or our balance, there. Messages wait, none is lost. \
                 `notihub provider list` shows how it stands; it is probed now and then, so nothing has to be done here."
            }
            AlertCause::Limit { .. } => {
                "What exceeds the limit waits its turn. If that is too slow: a higher limit at the provider, a second account, \
                 or fewer messages."
            }
            AlertCause::Fallback { .. } => {
                "This may cost more. `notihub status MESSAGE` tells of any message why it went the other way."
            }
            AlertCause::Unmatched { .. } => {
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
            AlertCause::Outage { provider: provider() },
            AlertCause::Refused { provider: provider() },
            AlertCause::Limit { provider: provider() },
            AlertCause::Fallback { from: Channel::KakaoAlimtalk, to: Channel::Sms },
            AlertCause::Unmatched { provider: provider() },
        ] {
            let key = cause.to_string();
            assert!(ALERT_KINDS.iter().any(|(kind, _)| key.split(':').next() == Some(*kind)), "{key}");
            assert_eq!(AlertCause::parse(&key), Some(cause));
        }
        assert_eq!(AlertCause::parse("fallback:SMS"), None);
    }
}
