//! An endpoint: where a partner wants its events. A URL, its secrets, and what it asks for.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::id::Tsid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointStatus {
    Active,
    /// Its owner wants nothing for now: what is for it waits until it is resumed.
    Paused,
    /// By us: gone (410), or nothing but failures for days. What is for it is a dead letter.
    Disabled,
    Deleted,
}

pub const ENDPOINT_STATUSES: [EndpointStatus; 4] =
    [EndpointStatus::Active, EndpointStatus::Paused, EndpointStatus::Disabled, EndpointStatus::Deleted];

impl EndpointStatus {
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

/// With its secrets opened: never logged, and shown to nobody after creation.
#[derive(Clone, PartialEq)]
pub struct Endpoint {
    pub shard: i16,
    pub partner_id: Tsid,
    pub endpoint_id: Tsid,
    pub url: String,
    pub description: Option<String>,
    /// The events it asks for; none: all, those to come included.
    pub events: Option<Vec<String>>,
    pub status: EndpointStatus,
    /// Why it was disabled: `gone` or `failing`.
    pub disabled_reason: Option<String>,
    /// Events of one message are sent one after the other.
    pub ordered: bool,
    /// Asks for what messages said.
    pub include_content: bool,
    /// Who is told by e-mail when it is disabled.
    pub contact_email: Option<String>,
    pub headers: BTreeMap<String, String>,
    /// `whsec_…`
    pub secret: String,
    /// During a rotation the secret before, until then.
    pub former: Option<(String, DateTime<Utc>)>,
    /// Since when nothing but failures; none while it works.
    pub failing_since: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
    pub last_failure_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint {} {}", self.endpoint_id, self.status.as_str())
    }
}

impl Endpoint {
    /// The secret before, while it is good yet.
    pub fn former_secret(&self, now: DateTime<Utc>) -> Option<&str> {
        self.former.as_ref().filter(|(_, until)| *until > now).map(|(secret, _)| secret.as_str())
    }
}
