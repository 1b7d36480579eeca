//! A message: what a partner posted, once, immutable. Its overall status is computed from its deliveries on each read
//! and is never stored (S3-19, S3-34).

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

/// The text that replaces an erased recipient address.
pub const ERASED: &str = "erased";

/// The JSON document in the column `messages.detail`: everything about a message that no statement filters by. Its
/// serde names are stored and never change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Subject of contents that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The distinct contents of the message. `NewDelivery::content` and `Fallback::content` are indices into this list.
    pub contents: Vec<Content>,
    /// The partner's own names and values; never sent to a recipient.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// True after a recipient or the content was erased, by an erasure request or at the end of the retention time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub erased: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Detail {
    /// Whether metadata or Slack blocks hold a number that PostgreSQL's jsonb writes differently from the partner: one
    /// with an exponent, or a zero with a sign.
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

/// What is sent over one channel, equal for all recipients that share it. Stored in `messages.detail`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// E-mail, LMS and MMS; Slack sends it in bold above the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Plain text. Only an e-mail may have an empty one.
    pub body: String,
    /// HTML alternative of an e-mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Slack Block Kit, sent as posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Value>,
    /// Code of the template approved by Kakao; `body` is an instance of that template.
    #[serde(rename = "templateCode", default, skip_serializing_if = "Option::is_none")]
    pub template_code: Option<String>,
    /// INAPP only: where the item leads.
    #[serde(rename = "actionUrl", default, skip_serializing_if = "Option::is_none")]
    pub action_url: Option<String>,
    /// INAPP only: a picture beside the item.
    #[serde(rename = "imageUrl", default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// INAPP only: the partner's own word, by which a client may sort items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// INAPP only: a word of `SEVERITIES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Set on webhook messages only: the event that the webhook reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Box<EventPayload>>,
    /// The fallback that is sent over another channel if this content does not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Box<Fallback>>,
}

/// A fallback: another channel, used if the delivery before it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fallback {
    pub channel: Channel,
    /// Index into `Detail::contents`. That content may have a fallback of its own.
    pub content: i16,
    /// Recipient in canonical form; `None`: the recipient of the delivery that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Fallback delivery number = original number + `step`. Deterministic, so concurrent writers collide on the primary
    /// key.
    pub step: i16,
    /// Seconds after SENT without a receipt that the original arrived, after which the fallback is sent. `None`: a
    /// missing receipt triggers no fallback.
    #[serde(rename = "noReceiptSeconds", default, skip_serializing_if = "Option::is_none")]
    pub no_receipt_s: Option<u32>,
    /// Attempts that the message allows the fallback delivery; `None`: as many as its channel's retry policy allows.
    #[serde(rename = "attempts", default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i16>,
    /// Whether an UNDETERMINED original, which may have been sent, triggers the fallback too.
    #[serde(rename = "onUnknown", default, skip_serializing_if = "is_false")]
    pub on_unknown: bool,
}

impl Fallback {
    /// A fallback added by a rule of the installation: same recipient, none of the options that only a message can ask
    /// for. `content` is an index into `Detail::contents`.
    pub fn from_rule(channel: Channel, content: i16, step: i16) -> Fallback {
        Fallback { channel, content, to: None, step, no_receipt_s: None, max_attempts: None, on_unknown: false }
    }
}

impl Content {
    /// Size in bytes (UTF-8) of subject, body, HTML, and blocks as JSON.
    pub fn size_bytes(&self) -> usize {
        let blocks = self.blocks.as_ref().map_or(0, |b| b.to_string().len());
        self.body.len()
            + self.subject.as_ref().map_or(0, String::len)
            + self.html.as_ref().map_or(0, String::len)
            + blocks
    }
}

/// A validated message that is not stored yet. Its serialised form is hashed by `fingerprint`, so serde names, field
/// order and skipped fields never change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewMessage {
    #[serde(skip)]
    pub client_msg_id: Option<String>,
    /// The partner's `type`.
    pub kind: String,
    #[serde(serialize_with = "priority_word")]
    pub priority: Priority,
    pub detail: Detail,
    /// In the order of the request; delivery number = index + 1.
    pub deliveries: Vec<NewDelivery>,
    /// Not sent before this time.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Not sent from this time on.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A parsed message. A new message must have no faults at all. A repeated one gets the answer of the first request even
/// if `faults_if_new` is not empty, because the clock, the partner's rights and the served channels may have changed
/// since.
#[derive(Debug, Clone)]
pub struct PostedMessage {
    pub message: NewMessage,
    /// `NewMessage::fingerprint` of the message as posted, before the installation's fallback rules were added.
    pub fingerprint: [u8; 32],
    /// Faults that depend on the time, the partner's rights or the served channels.
    pub faults_if_new: Vec<Fault>,
}

impl PostedMessage {
    /// Returns the message if it may be stored as a new one.
    ///
    /// # Errors
    /// A `Refusal` with every fault, if `faults_if_new` is not empty.
    pub fn into_new(self) -> Result<NewMessage, Refusal> {
        if self.faults_if_new.is_empty() { Ok(self.message) } else { Err(Refusal::from_faults(self.faults_if_new)) }
    }
}

impl From<NewMessage> for PostedMessage {
    fn from(message: NewMessage) -> PostedMessage {
        PostedMessage { fingerprint: message.fingerprint(), message, faults_if_new: Vec::new() }
    }
}

/// One delivery of a message that is not stored yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewDelivery {
    #[serde(serialize_with = "channel_word")]
    pub channel: Channel,
    /// The recipient in the form that the provider takes, such as E.164.
    pub to: String,
    /// The recipient as the partner wrote it, if that differs from `to`. Both mean the same, so it is not part of the
    /// fingerprint.
    #[serde(skip)]
    pub recipient_as_given: Option<String>,
    /// Index into `Detail::contents`.
    pub content: i16,
    /// Whether the content has a fallback. Follows from the content, so it is not part of the fingerprint.
    #[serde(skip)]
    pub has_fallback: bool,
    /// Attempts that the message allows; `None`: as many as the channel's retry policy allows.
    #[serde(rename = "attempts", skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i16>,
}

impl NewDelivery {
    /// A delivery of the first content, with no options.
    pub fn new(channel: Channel, to: String) -> NewDelivery {
        NewDelivery { channel, to, recipient_as_given: None, content: 0, has_fallback: false, max_attempts: None }
    }

    /// The recipient as the partner wrote it.
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
    /// SHA-256 over the meaning of the message: equal for the same request in another field order or with other white
    /// space, different for any other request. The idempotency key is not part of it. Stored fingerprints are compared
    /// with new ones, so the hashed bytes must never change.
    pub fn fingerprint(&self) -> [u8; 32] {
        use sha2::Digest as _;
        // Maps are sorted by key and every field is serialisable, so this cannot fail. An empty text in place of a
        // failure would give all requests the same fingerprint.
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

    /// Whether every e-mail address is in canonical form already.
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

/// The status of a message, computed from its deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverallStatus {
    Pending,
    Processing,
    Completed,
    Partial,
    Failed,
    Canceled,
}

/// Every overall status.
pub const OVERALL_STATUSES: [OverallStatus; 6] = [
    OverallStatus::Pending,
    OverallStatus::Processing,
    OverallStatus::Completed,
    OverallStatus::Partial,
    OverallStatus::Failed,
    OverallStatus::Canceled,
];

impl OverallStatus {
    /// The stable word in the API, such as `COMPLETED`.
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

    /// Computes the overall status. Each item is (chain, channel, status, attempts used) of one delivery, in any order.
    ///
    /// Deliveries of one fallback chain count as one, with the best status among them. Webhook deliveries do not count.
    /// PENDING until an attempt starts or a delivery settles; no countable delivery at all is COMPLETED.
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
