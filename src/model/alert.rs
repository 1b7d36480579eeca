//! Alerts to operators: their causes and texts. Each alert is sent once when it begins and once when it is over.

use std::fmt;
use std::time::Duration;

use super::channel::Channel;

/// The cause of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertCause {
    /// A provider is failing: its breaker is open (S1-43).
    Outage { provider: String },
    /// A provider refuses our credentials, or our balance is used up: a person must correct the account (S1-48).
    Refused { provider: String },
    /// A provider's rate limit is nearly used up (S1-44).
    Limit { provider: String },
    /// Messages are sent over a fallback channel (S1-45).
    Fallback { from: Channel, to: Channel },
    /// A provider sends receipts for messages that are not in the database.
    Unmatched { provider: String },
    /// An invariant of the database is broken, as a worker with `--fsck-every-s` found.
    Broken { invariant: String },
    /// A credential looks stolen.
    Abuse { pattern: AbusePattern },
}

/// What a stolen credential looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AbusePattern {
    /// A refresh token was used a second time: its owner has another one by then (S4-179).
    RefreshTokenReused,
}

impl AbusePattern {
    const ALL: [AbusePattern; 1] = [AbusePattern::RefreshTokenReused];

    fn as_str(self) -> &'static str {
        match self {
            AbusePattern::RefreshTokenReused => "refresh_token_reused",
        }
    }
}

/// The kinds of causes, each with the time without a new occurrence after which the alert is over.
pub const ALERT_KINDS: [(&str, Duration); 7] = [
    ("outage", Duration::from_secs(30)),
    ("refused", Duration::from_secs(30)),
    ("limit", Duration::from_secs(120)),
    ("fallback", Duration::from_secs(600)),
    ("unmatched", Duration::from_secs(120)),
    // Three of the longest period of the check.
    ("broken", Duration::from_secs(900)),
    ("abuse", Duration::from_secs(3600)),
];

/// The key of an open alert: at most one is open for each key.
impl fmt::Display for AlertCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlertCause::Outage { provider } => write!(f, "outage:{provider}"),
            AlertCause::Refused { provider } => write!(f, "refused:{provider}"),
            AlertCause::Limit { provider } => write!(f, "limit:{provider}"),
            AlertCause::Fallback { from, to } => write!(f, "fallback:{from}:{to}"),
            AlertCause::Unmatched { provider } => write!(f, "unmatched:{provider}"),
            AlertCause::Broken { invariant } => write!(f, "broken:{invariant}"),
            AlertCause::Abuse { pattern } => write!(f, "abuse:{}", pattern.as_str()),
        }
    }
}

impl AlertCause {
    /// Parses the key that `Display` writes; `None` for any other text.
    pub fn parse(key: &str) -> Option<AlertCause> {
        let (kind, rest) = key.split_once(':')?;
        let provider = rest.to_owned();
        Some(match kind {
            "outage" => AlertCause::Outage { provider },
            "refused" => AlertCause::Refused { provider },
            "limit" => AlertCause::Limit { provider },
            "unmatched" => AlertCause::Unmatched { provider },
            "broken" => AlertCause::Broken { invariant: provider },
            "abuse" => AlertCause::Abuse { pattern: AbusePattern::ALL.into_iter().find(|p| p.as_str() == rest)? },
            "fallback" => {
                let (from, to) = rest.split_once(':')?;
                AlertCause::Fallback { from: from.parse().ok()?, to: to.parse().ok()? }
            }
            _ => return None,
        })
    }

    /// The title, one line.
    pub fn title(&self) -> String {
        match self {
            AlertCause::Outage { provider } => format!("Provider {provider} is down"),
            AlertCause::Refused { provider } => format!("Provider {provider} refuses our account"),
            AlertCause::Limit { provider } => format!("Provider {provider} is near its limit"),
            AlertCause::Fallback { from, to } => format!("{from} falls back to {to}"),
            AlertCause::Unmatched { provider } => format!("Provider {provider} sends receipts for unknown messages"),
            AlertCause::Broken { invariant } => format!("Invariant {invariant} of the database is broken"),
            AlertCause::Abuse { pattern: AbusePattern::RefreshTokenReused } => {
                "A refresh token was used twice: it may have been stolen".to_owned()
            }
        }
    }

    /// What the alert means and what the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            AlertCause::Outage { .. } => {
                "It is not called until it works again, except for occasional probes. Messages wait, or use another \
                 provider or channel if there is one. No message is lost. `notihub provider list` shows its state."
            }
            AlertCause::Refused { .. } => {
                "Correct our key or our balance at the provider. Until then messages wait; none is lost. The provider \
                 is probed from time to time, so nothing has to be done here. `notihub provider list` shows its state."
            }
            AlertCause::Limit { .. } => {
                "Messages over the limit wait. If that is too slow, get a higher limit at the provider, add a second \
                 account, or send fewer messages."
            }
            AlertCause::Fallback { .. } => {
                "This may cost more. `notihub status MESSAGE` shows why a message used its fallback."
            }
            AlertCause::Unmatched { .. } => {
                "Check whether another installation uses the same account, or the database was restored. The receipts \
                 are kept and matched again."
            }
            AlertCause::Broken { .. } => {
                "`notihub fsck` lists all that is broken. Look for a change made in the database by hand, a restored \
                 backup, or a fault of the hub."
            }
            AlertCause::Abuse { pattern: AbusePattern::RefreshTokenReused } => {
                "The hub has ended the sign-in that the token belongs to. Either the token was copied, or a client \
                 still uses an old token after it received a new one. The audit log has the account and the caller's \
                 address, under the action `refresh_token.reused`."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_cause_parses_from_its_key() {
        let provider = || "nhn.main".to_owned();
        for cause in [
            AlertCause::Outage { provider: provider() },
            AlertCause::Refused { provider: provider() },
            AlertCause::Limit { provider: provider() },
            AlertCause::Fallback { from: Channel::KakaoAlimtalk, to: Channel::Sms },
            AlertCause::Unmatched { provider: provider() },
            AlertCause::Broken { invariant: "events".to_owned() },
            AlertCause::Abuse { pattern: AbusePattern::RefreshTokenReused },
        ] {
            let key = cause.to_string();
            assert!(ALERT_KINDS.iter().any(|(kind, _)| key.split(':').next() == Some(*kind)), "{key}");
            assert_eq!(AlertCause::parse(&key), Some(cause));
        }
        assert_eq!(AlertCause::parse("fallback:SMS"), None);
    }
}
