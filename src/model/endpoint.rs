//! Endpoints: where a partner receives its events. A URL, its secrets, and its subscriptions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::egress::is_reserved_header;
use crate::id::Tsid;
use crate::limits;

/// The status of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointStatus {
    /// Its events are sent.
    Active,
    /// Paused by its owner: its events wait until it is resumed.
    Paused,
    /// Disabled by the hub after 410 Gone or days of failures only. Its events become dead letters.
    Disabled,
    /// Deleted by its owner.
    Deleted,
}

/// Every status of an endpoint.
pub const ENDPOINT_STATUSES: [EndpointStatus; 4] =
    [EndpointStatus::Active, EndpointStatus::Paused, EndpointStatus::Disabled, EndpointStatus::Deleted];

impl EndpointStatus {
    /// The stable word in the database and the API, such as `ACTIVE`.
    pub fn as_str(self) -> &'static str {
        match self {
            EndpointStatus::Active => "ACTIVE",
            EndpointStatus::Paused => "PAUSED",
            EndpointStatus::Disabled => "DISABLED",
            EndpointStatus::Deleted => "DELETED",
        }
    }
}

impl std::str::FromStr for EndpointStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<EndpointStatus, ()> {
        ENDPOINT_STATUSES.into_iter().find(|s| s.as_str() == text).ok_or(())
    }
}

/// An endpoint with its secrets decrypted. Never logged; secrets are shown only at creation.
#[derive(Clone, PartialEq)]
pub struct Endpoint {
    pub shard: i16,
    pub partner_id: Tsid,
    pub endpoint_id: Tsid,
    pub url: String,
    pub description: Option<String>,
    /// Names of the events it subscribed to; `None`: all, also kinds added later.
    pub events: Option<Vec<String>>,
    pub status: EndpointStatus,
    /// Why it was disabled: `gone`, `failing` or `paused`.
    pub disabled_reason: Option<String>,
    /// Whether events of one message are sent in order, each after the previous one is delivered.
    pub ordered: bool,
    /// Whether the owner asked for message content in events.
    pub include_content: bool,
    /// Address that gets an e-mail when the endpoint is disabled.
    pub contact_email: Option<String>,
    /// The owner's own headers, added to each request: lower-case name, value.
    pub headers: BTreeMap<String, String>,
    /// The signing secret, `whsec_…`.
    pub secret: String,
    /// During a rotation: the previous secret, and until when it is valid.
    pub previous_secret: Option<(String, DateTime<Utc>)>,
    /// Time of the first failure since the last success; `None` while it works.
    pub failing_since: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Set while deliveries parked during a pause are being released.
    pub resumed_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint {} {}", self.endpoint_id, self.status.as_str())
    }
}

/// Checks a custom header and returns its name in lower case.
///
/// # Errors
/// (reason of `REASONS`, detail as a sentence without its subject). The value is never quoted: it may be a credential.
pub fn check_header(name: &str, value: &str) -> Result<String, (&'static str, String)> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let small = name.to_ascii_lowercase();
    let (name_most, value_most) = (limits::ENDPOINT_HEADER_NAME_BYTES, limits::ENDPOINT_HEADER_VALUE_BYTES);
    if name.is_empty() || name.len() > name_most || !name.bytes().all(token) {
        return Err(("header_invalid", format!("is not a header name; use a token of up to {name_most} characters")));
    }
    if is_reserved_header(&small) {
        return Err(("header_reserved", "is a header that the hub or HTTP sets; use another name".to_owned()));
    }
    // White space at the ends would be lost on the way.
    let visible = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) && value.trim() == value;
    if value.is_empty() || value.len() > value_most || !visible {
        return Err(("header_invalid", format!("must be 1 to {value_most} visible ASCII characters")));
    }
    Ok(small)
}

impl Endpoint {
    /// Scheme, host and port of the URL, for logs. The path may be a secret.
    pub fn origin(&self) -> &str {
        let from = self.url.find("://").map_or(0, |at| at + 3);
        let length = self.url.get(from..).and_then(|rest| rest.find(['/', '?', '#']));
        length.map_or(self.url.as_str(), |length| &self.url[..from + length])
    }

    /// The previous secret while it is still valid.
    pub fn valid_previous_secret(&self, now: DateTime<Utc>) -> Option<&str> {
        self.previous_secret.as_ref().filter(|(_, until)| *until > now).map(|(secret, _)| secret.as_str())
    }
}

/// An endpoint's answers over some time, as one process saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    pub success_at: Option<DateTime<Utc>>,
    pub failure_at: Option<DateTime<Utc>>,
    /// Time of the first failure after the last success, or of the first failure at all.
    pub failing_since: Option<DateTime<Utc>>,
}

impl AnswerSummary {
    /// Adds an attempt that is later than all before. `succeeded` is false for a refusal and for no answer.
    pub fn add(&mut self, succeeded: bool, at: DateTime<Utc>) {
        if succeeded {
            (self.success_at, self.failing_since) = (Some(at), None);
        } else {
            self.failure_at = Some(at);
            self.failing_since.get_or_insert(at);
        }
    }

    /// Combines this summary with one of the time right after it.
    pub fn followed_by(self, later: AnswerSummary) -> AnswerSummary {
        AnswerSummary {
            success_at: later.success_at.or(self.success_at),
            failure_at: later.failure_at.or(self.failure_at),
            failing_since: match later.success_at {
                // A success ends the failures before it.
                Some(_) => later.failing_since,
                None => self.failing_since.or(later.failing_since),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_parts_equal_the_summary_of_the_whole() {
        let at = |n: i64| DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::seconds(n);
        for bits in 0..16u8 {
            let answers = (0..4).map(|n| (bits >> n & 1 == 1, at(n)));
            let summary = |answers: &[(bool, DateTime<Utc>)]| {
                let mut summary = AnswerSummary::default();
                answers.iter().for_each(|(succeeded, at)| summary.add(*succeeded, *at));
                summary
            };
            let answers: Vec<_> = answers.collect();
            for cut in 0..=answers.len() {
                let (before, after) = answers.split_at(cut);
                assert_eq!(summary(before).followed_by(summary(after)), summary(&answers), "{bits:04b} cut at {cut}");
            }
        }
    }

    #[test]
    fn owner_headers_exclude_reserved_ones() {
        for (name, value) in [("X-Api-Key", "a b"), ("authorization", "Bearer x"), ("a", "~"), ("x-timestamps", "1")] {
            assert_eq!(check_header(name, value), Ok(name.to_ascii_lowercase()), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "a b", "a:b", "a\r\nb", "é", long.as_str()] {
            assert_eq!(check_header(name, "x").unwrap_err().0, "header_invalid", "{name}");
        }
        let long = "a".repeat(1025);
        for value in ["", " a", "a ", "a\r\nhost: b", "a\tb", "é", "a\0", long.as_str()] {
            assert_eq!(check_header("a", value).unwrap_err().0, "header_invalid", "{value}");
        }
        for name in ["Host", "content-type", "PROXY-Authorization", "webhook-id", "X-Signature-Next", "x-timestamp"] {
            assert_eq!(check_header(name, "x").unwrap_err().0, "header_reserved", "{name}");
        }
    }
}
