//! A message: what a partner posted, once, immutable. Its overall status is computed from its deliveries when asked and
//! never stored (S3-19, S3-34).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::channel::{AddressKind, Channel, canonical_address};
use super::delivery::Status;
use super::event::EventPayload;
use super::lane::Priority;
use crate::error::{Fault, Refusal};
use crate::id::Tsid;

/// What stands in the place of an address that was erased.
pub const ERASED: &str = "erased";

/// What `messages.detail` holds: everything about a message that no statement asks for by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A delivery names one of these by its index.
    pub contents: Vec<Content>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Something of it was erased, because a person asked or its time was over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub erased: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Detail {
    /// It has a number that a database writes in another way: with an exponent, or a zero with a sign.
    pub fn has_noncanonical_numbers(&self) -> bool {
        fn is_own(value: &Value) -> bool {
            match value {
                Value::Number(number) => {
                    let digits = number.as_str();
                    digits.contains(['e', 'E'])
                        || digits.starts_with('-') && !digits.contains(|c| matches!(c, '1'..='9'))
                }
                Value::Array(items) => items.iter().any(is_own),
                Value::Object(fields) => fields.values().any(is_own),
                Value::Null | Value::Bool(_) | Value::String(_) => false,
            }
        }
        let blocks = self.contents.iter().filter_map(|content| content.blocks.as_ref());
        self.metadata.values().chain(blocks).any(is_own)
    }
}

/// What goes out over one channel; the same for all its recipients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Slack Block Kit, passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Value>,
    /// The approved template at Kakao that the body is an instance of.
    #[serde(rename = "templateCode", default, skip_serializing_if = "Option::is_none")]
    pub template_code: Option<String>,
    /// Of a message that tells of another: what happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Box<EventPayload>>,
    /// What goes out instead, over another channel, if this does not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Box<Fallback>>,
}

/// Another channel that stands by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fallback {
    pub channel: Channel,
    /// Index into `Detail::contents` of what goes out there; that one may have a fallback of its own.
    pub content: i16,
    /// To whom, as it is kept; none: to the same recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The number of the delivery that takes the place of number n is n + step: so whoever makes it makes the same.
    pub step: i16,
    /// Seconds after which it takes the place of what was sent, if no receipt says that that arrived.
    #[serde(rename = "noReceiptSeconds", default, skip_serializing_if = "Option::is_none")]
    pub no_receipt_s: Option<u32>,
    /// How often it is tried, where the message says so.
    #[serde(rename = "attempts", default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i16>,
    /// It also takes the place of what may have been sent.
    #[serde(rename = "onUnknown", default, skip_serializing_if = "is_false")]
    pub on_unknown: bool,
}

impl Fallback {
    /// A channel that stands by because the installation says so: for the same recipient, with nothing that only a
    /// message can ask for.
    pub fn from_rule(channel: Channel, content: i16, step: i16) -> Fallback {
        Fallback { channel, content, to: None, step, no_receipt_s: None, max_attempts: None, on_unknown: false }
    }
}

impl Content {
    /// What it weighs: subject, body and HTML, and blocks as JSON.
    pub fn size_bytes(&self) -> usize {
        let blocks = self.blocks.as_ref().map_or(0, |b| b.to_string().len());
        self.body.len()
            + self.subject.as_ref().map_or(0, String::len)
            + self.html.as_ref().map_or(0, String::len)
            + blocks
    }
}

/// A message that was read and found right, not yet stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewMessage {
    #[serde(skip)]
    pub client_msg_id: Option<String>,
    pub kind: String,
    #[serde(serialize_with = "priority_word")]
    pub priority: Priority,
    pub detail: Detail,
    pub deliveries: Vec<NewDelivery>,
    pub scheduled_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// A message that was read. Posted for the first time it must have no faults. Posted again it is answered as it was the
/// first time: the clock, the partner's rights and what this installation serves may have changed since.
#[derive(Debug, Clone)]
pub struct PostedMessage {
    pub message: NewMessage,
    /// `NewMessage::fingerprint` of the message as it was posted, without what the installation's rules added since.
    pub fingerprint: [u8; 32],
    pub faults_if_new: Vec<Fault>,
}

impl PostedMessage {
    /// As a message that was not posted before.
    pub fn into_new(self) -> Result<NewMessage, Refusal> {
        if self.faults_if_new.is_empty() { Ok(self.message) } else { Err(Refusal::from_faults(self.faults_if_new)) }
    }
}

impl From<NewMessage> for PostedMessage {
    fn from(message: NewMessage) -> PostedMessage {
        PostedMessage { fingerprint: message.fingerprint(), message, faults_if_new: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewDelivery {
    #[serde(serialize_with = "channel_word")]
    pub channel: Channel,
    pub to: String,
    /// How the partner wrote `to`, where that is not the same. It means the same, so it is no part of the fingerprint.
    #[serde(skip)]
    pub recipient_as_given: Option<String>,
    /// Index into `Detail::contents`.
    pub content: i16,
    /// Its content names a fallback. Part of the content, so no part of the fingerprint by itself.
    #[serde(skip)]
    pub has_fallback: bool,
    /// Attempts, where the message says how many.
    #[serde(rename = "attempts", skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i16>,
}

impl NewDelivery {
    /// Of the first content.
    pub fn new(channel: Channel, to: String) -> NewDelivery {
        NewDelivery { channel, to, recipient_as_given: None, content: 0, has_fallback: false, max_attempts: None }
    }

    /// The recipient in the partner's words.
    pub fn displayed_recipient(&self) -> &str {
        self.recipient_as_given.as_deref().unwrap_or(&self.to)
    }
}

fn priority_word<S: serde::Serializer>(priority: &Priority, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(priority.as_str())
}

fn channel_word<S: serde::Serializer>(channel: &Channel, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(channel.as_str())
}

impl NewMessage {
    /// SHA-256 over what the message means, so that the same request written in another order or with other white space
    /// is the same, and anything else is not. The key itself is not part of it. Stored fingerprints are compared with new
    /// ones, so the bytes that are hashed never change.
    pub fn fingerprint(&self) -> [u8; 32] {
        use sha2::Digest as _;
        // Maps are sorted by key and every field is serialisable: this cannot fail, and if it did, an empty text would
        // make all requests alike, so it must not pass silently.
        #[expect(clippy::expect_used, reason = "serialising plain data to memory cannot fail")]
        let canonical = if self.is_canonical() {
            serde_json::to_vec(self)
        } else {
            let mut posted = self.clone();
            posted.recipients().for_each(|(channel, to)| *to = canonical_address(channel, to));
            serde_json::to_vec(&posted)
        }
        .expect("a message is serialisable");
        sha2::Sha256::digest(canonical).into()
    }

    /// Nothing of it could mean the same and be written otherwise.
    fn is_canonical(&self) -> bool {
        let is_folded = |channel: Channel, to: &str| {
            channel.addressed_by() != AddressKind::Mailbox || !to.bytes().any(|b| b.is_ascii_uppercase())
        };
        let fallbacks = || self.detail.contents.iter().filter_map(|content| content.fallback.as_ref());
        self.deliveries.iter().all(|d| is_folded(d.channel, &d.to))
            && fallbacks().all(|f| f.to.as_ref().is_none_or(|to| is_folded(f.channel, to)))
    }

    fn recipients(&mut self) -> impl Iterator<Item = (Channel, &mut String)> {
        let fallbacks = self.detail.contents.iter_mut().filter_map(|content| content.fallback.as_mut());
        let fallbacks = fallbacks.filter_map(|f| Some((f.channel, f.to.as_mut()?)));
        self.deliveries.iter_mut().map(|d| (d.channel, &mut d.to)).chain(fallbacks)
    }
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct Message {
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub client_msg_id: Option<String>,
    pub kind: String,
    pub priority: Priority,
    pub detail: Detail,
    pub created_at: DateTime<Utc>,
    pub scheduled_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverallStatus {
    Pending,
    Processing,
    Completed,
    Partial,
    Failed,
    Canceled,
}

pub const OVERALL_STATUSES: [OverallStatus; 6] = [
    OverallStatus::Pending,
    OverallStatus::Processing,
    OverallStatus::Completed,
    OverallStatus::Partial,
    OverallStatus::Failed,
    OverallStatus::Canceled,
];

impl OverallStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            OverallStatus::Pending => "PENDING",
            OverallStatus::Processing => "PROCESSING",
            OverallStatus::Completed => "COMPLETED",
            OverallStatus::Partial => "PARTIAL",
            OverallStatus::Failed => "FAILED",
            OverallStatus::Canceled => "CANCELED",
        }
    }

    /// From (chain, channel, status, attempts spent) of each delivery. PENDING while nothing has started. Deliveries of one
    /// chain took each other's place: together they count as one, which is good when any of them is.
    pub fn of(deliveries: impl IntoIterator<Item = (Option<i16>, Channel, Status, i16)>) -> OverallStatus {
        let (mut all, mut open, mut started, mut good, mut canceled) = (0, 0, false, 0, 0);
        let mut count = |status: Status| {
            all += 1;
            open += u32::from(!status.is_settled());
            good += u32::from(status.is_success());
            canceled += u32::from(status == Status::Canceled);
        };
        let mut chains: BTreeMap<i16, Status> = BTreeMap::new();
        for (chain, channel, status, attempt) in deliveries {
            if !channel.counts_towards_message() {
                continue;
            }
            started |= status == Status::Processing || status.is_settled() || attempt > 0;
            match chain {
                Some(chain) => {
                    let standing = |s: Status| (s.is_success(), !s.is_settled());
                    let best = chains.entry(chain).or_insert(status);
                    if standing(status) > standing(*best) {
                        *best = status;
                    }
                }
                None => count(status),
            }
        }
        chains.into_values().for_each(count);
        match (open, started) {
            (1.., false) => OverallStatus::Pending,
            (1.., true) => OverallStatus::Processing,
            _ if canceled == all && all > 0 => OverallStatus::Canceled,
            _ if good == all => OverallStatus::Completed,
            _ if good > 0 => OverallStatus::Partial,
            _ => OverallStatus::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S3-19, S3-34: in progress, completed, failed, from the deliveries alone.
    #[test]
    fn overall_status_follows_from_the_deliveries() {
        use Status::*;
        let of = |list: &[(Status, i16)]| OverallStatus::of(list.iter().map(|&(s, n)| (None, Channel::Email, s, n)));
        assert_eq!(of(&[(Pending, 0), (Scheduled, 0)]), OverallStatus::Pending);
        assert_eq!(of(&[(Pending, 0), (Sent, 1)]), OverallStatus::Processing);
        assert_eq!(of(&[(Scheduled, 1)]), OverallStatus::Processing, "a retry that waits has started");
        assert_eq!(of(&[(Sent, 1), (Delivered, 1)]), OverallStatus::Completed);
        assert_eq!(of(&[(Sent, 1), (Failed, 3)]), OverallStatus::Partial);
        assert_eq!(of(&[(Undetermined, 1), (Failed, 3)]), OverallStatus::Failed);
        assert_eq!(of(&[(Canceled, 0), (Canceled, 0)]), OverallStatus::Canceled);
        assert_eq!(of(&[(Canceled, 0), (Failed, 3)]), OverallStatus::Failed);
        let with_webhook = [(None, Channel::Email, Sent, 1), (None, Channel::Webhook, Failed, 9)];
        assert_eq!(
            OverallStatus::of(with_webhook),
            OverallStatus::Completed,
            "telling the partner is not part of the message"
        );
        let chained = |first, second| {
            OverallStatus::of([(Some(1), Channel::KakaoAlimtalk, first, 3), (Some(1), Channel::Sms, second, 1)])
        };
        assert_eq!(chained(Failed, Sent), OverallStatus::Completed, "S1-19: sent another way is sent");
        assert_eq!(chained(Delivered, Failed), OverallStatus::Completed);
        assert_eq!(chained(Failed, Pending), OverallStatus::Processing);
        assert_eq!(chained(Delivered, Pending), OverallStatus::Completed, "whatever comes of the other");
        assert_eq!(chained(Failed, Failed), OverallStatus::Failed);
    }
}
