//! A message in the full form, `POST /v1/messages`: its fields beside the channels, and its limits as a whole.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::channel_form::NEW_CHANNEL;
use super::draft::{Draft, bytes, bytes_sent, most_deliveries};
use super::entry::Entries;
use super::reader::{KEY, NOT_SERVED, Reader, Shared};
use super::recipient::RECIPIENT;
use crate::error::{Code, excerpt};
use crate::limits;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, TextRule};
use crate::model::lane::{PRIORITIES, Priority};
use crate::model::message::{Detail, NewMessage};

/// The body of `POST /v1/messages`.
pub static MESSAGE: Form = Form {
    name: "NewMessage",
    description: "A message: its content, recipients, channels and times.",
    kind: Kind::Object(&[
        Field::optional(
            "clientMsgId",
            Kind::Text(KEY),
            "The partner's own key, compared as posted. A repeated key with the same message returns the first answer \
             and stores nothing; with a different message it is refused.",
        ),
        Field::required("type", KIND, KIND_ABOUT)
            .with_length(None, KIND_MOST)
            .with_pattern(KIND_PATTERN)
            .with_examples(&["ORDER_COMPLETED"]),
        Field::optional("priority", PRIORITY, PRIORITY_ABOUT),
        Field::optional("title", TITLE, "Subject of contents that have none of their own. One line."),
        Field::optional(
            "body",
            BODY,
            "Text of channels that have none of their own; at most 64 KiB. Stored, counted and sent in Unicode's \
             composed form\n(NFC), with LF at the end of lines. Only an e-mail may have an empty (`\"\"`) or blank \
             body.",
        ),
        Field::required(
            "channels",
            Kind::List(&Kind::Form(&NEW_CHANNEL), Some(1), Some(limits::CHANNELS)),
            "One entry for each channel; at most 10,000 deliveries in all.",
        ),
        Field::optional(
            "recipients",
            Kind::List(&Kind::Form(&RECIPIENT), None, None),
            "Recipients of channels that have no `to`.",
        ),
        Field::optional(
            "scheduledAt",
            Kind::Time,
            "Not sent before this time, at most 60 days ahead; RFC 3339 with offset.",
        ),
        Field::optional(
            "expiresAt",
            Kind::Time,
            "Not sent from this time on; RFC 3339 with offset, after `scheduledAt`.",
        ),
        Field::optional("metadata", Kind::Metadata, ""),
    ]),
    examples: &[
        r#"{
            "clientMsgId": "order-2026-1234-paid", "type": "ORDER_COMPLETED", "title": "Paid", "body": "Thank you.",
            "channels": [
                {"channel": "EMAIL", "to": "kim@example.com", "html": "<p>Thank you.</p>"},
                {"channel": "SLACK", "to": "ops", "body": "Order 1234 is paid."}
            ],
            "metadata": {"orderId": "1234"}
        }"#,
        r#"{
            "type": "NEWS", "priority": "BULK", "title": "News", "body": "There is news.",
            "recipients": [{"id": "u-1", "email": "kim@example.com"}, {"id": "u-2", "email": "lee@example.com"}],
            "channels": [{"channel": "EMAIL"}]
        }"#,
        r#"{
            "type": "SHIPPED", "body": "Your parcel is on its way.",
            "channels": [{
                "channel": "KAKAO_ALIMTALK", "to": "010-1234-5678", "templateCode": "SHIP_01",
                "fallback": [{"channel": "SMS"}]
            }]
        }"#,
    ],
};

// Fields that the short form has too.
pub(super) const KIND: Kind = Kind::Plain(TextRule::line(limits::KIND_CHARS));
pub(super) const KIND_MOST: Option<usize> = Some(limits::KIND_CHARS);
pub(super) const KIND_PATTERN: &str = "^[A-Za-z0-9_.:-]+$";
pub(super) const KIND_ABOUT: &str = "The partner's own name for this kind of message.";
pub(super) const PRIORITY: Kind = Kind::Word("PriorityWord", TextRule::line(32));
pub(super) const PRIORITY_ABOUT: &str = "Default: NORMAL.";
pub(super) const TITLE: Kind = Kind::Text(TextRule::line(limits::TITLE_CHARS));
pub(super) const BODY: Kind = Kind::Text(TextRule::block(limits::TEXT_BYTES).or_empty());

impl Reader<'_> {
    /// Reads one message. `pointer`: its JSON pointer in the body. `None` if a fault leaves no message; the fault is
    /// reported.
    pub fn message(self, value: Value, pointer: &str) -> Option<Draft> {
        let faults = self.faults;
        let mut fields = Fields::open(&MESSAGE, value, pointer, faults)?;
        let client_msg_id = fields.text("clientMsgId");
        let kind = self.kind(&mut fields);
        let priority = self.priority(&mut fields);
        let title = fields.text("title");
        let body = fields.text("body");
        let (scheduled_at, expires_at) = self.times(&mut fields);
        let metadata = self.metadata(&mut fields);
        let recipients = self.recipients(&mut fields);
        fields.not_served(&NOT_SERVED);
        fields.not_served(&["fallback"]);
        let channels_at = fields.pointer_to("channels");
        let channels = fields.list("channels");
        fields.close();
        let channels = channels?;
        if channels.is_empty() {
            faults.add(&channels_at, "empty", "is empty; name at least one channel");
        }
        if channels.len() > limits::CHANNELS {
            let detail = format!(
                "has {} entries; the limit is {}: give one entry several recipients",
                channels.len(),
                limits::CHANNELS
            );
            faults.add(&channels_at, "too_many_items", detail);
            return None;
        }
        let shared = Shared { title, body, recipients };
        let mut entries = Entries::default();
        for (pointer, item) in channels {
            entries.read(self, item, &pointer, &shared);
        }
        entries.number();
        self.size(&entries, &channels_at);
        let Entries { contents, deliveries, by_rule, .. } = entries;
        let message = NewMessage {
            client_msg_id,
            kind: kind?,
            priority: priority?,
            detail: Detail { title: shared.title, contents, metadata, erased: false },
            deliveries,
            scheduled_at,
            expires_at,
        };
        Some(Draft { message, by_rule })
    }

    fn kind(self, fields: &mut Fields<'_>) -> Option<String> {
        let kind = fields.text("type")?;
        let plain = kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
        if plain {
            return Some(kind);
        }
        let detail = format!("'{}' has characters other than letters, digits and _ - . :", excerpt(&kind));
        self.faults.add_code(Code::E005, fields.pointer_to("type"), "type_invalid", detail);
        None
    }

    fn priority(self, fields: &mut Fields<'_>) -> Option<Priority> {
        if !fields.has("priority") {
            fields.take("priority");
            return Some(Priority::default());
        }
        let word = fields.text("priority")?;
        json::one_of(&word, fields.pointer_to("priority"), &PRIORITIES.map(Priority::as_str), self.faults, Code::E001)
    }

    /// `scheduledAt` and `expiresAt`.
    fn times(self, fields: &mut Fields<'_>) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let (now, faults) = (self.policy.now, self.faults);
        let ahead = |limit: std::time::Duration| now + TimeDelta::from_std(limit).unwrap_or_default();
        let scheduled = fields.time("scheduledAt");
        let expires = fields.time("expiresAt");
        let if_new = |field: &str, reason, detail: String| {
            faults.add_if_new(Code::E001, fields.pointer_to(field), reason, detail)
        };
        if let Some(at) = scheduled {
            if at < now - TimeDelta::from_std(limits::SCHEDULE_GRACE).unwrap_or_default() {
                if_new("scheduledAt", "time_range", "is in the past".into());
            } else if at > now && !self.policy.partner.may_schedule {
                if_new(
                    "scheduledAt",
                    "not_allowed",
                    "must not lie ahead: this partner may not schedule messages".into(),
                );
            } else if at > ahead(limits::SCHEDULE_AHEAD) {
                let days = limits::SCHEDULE_AHEAD.as_secs() / 86_400;
                if_new("scheduledAt", "time_range", format!("is more than {days} days ahead"));
            }
        }
        if let Some(at) = expires {
            if at <= now {
                if_new("expiresAt", "time_range", "is in the past".into());
            } else if at > ahead(limits::SCHEDULE_AHEAD * 2) {
                let days = limits::SCHEDULE_AHEAD.as_secs() * 2 / 86_400;
                if_new("expiresAt", "time_range", format!("is more than {days} days ahead"));
            } else if scheduled.is_some_and(|scheduled| at <= scheduled) {
                faults.add(fields.pointer_to("expiresAt"), "time_range", "is not after scheduledAt");
            }
        }
        (scheduled, expires)
    }

    fn metadata(self, fields: &mut Fields<'_>) -> Map<String, Value> {
        let faults = self.faults;
        let metadata = match fields.take("metadata") {
            None => return Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => {
                json::mismatch(faults, fields.pointer_to("metadata"), "an object", &other);
                return Map::new();
            }
        };
        let pointer = || fields.pointer_to("metadata");
        let size = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
        if size > limits::METADATA_BYTES {
            let detail = format!("is {size} bytes as JSON; the limit is {} bytes", limits::METADATA_BYTES);
            faults.add(pointer(), "metadata_invalid", detail);
        }
        for (key, value) in &metadata {
            let reserved = matches!(key.as_str(), "__proto__" | "constructor" | "prototype");
            if key.is_empty() || key.chars().count() > limits::METADATA_KEY_CHARS || reserved {
                let detail = format!("'{}' is not a name for metadata", excerpt(key));
                faults.add(pointer(), "metadata_invalid", detail);
            } else if value.is_object() || value.is_array() {
                faults.add(
                    json::child_pointer(&pointer(), key),
                    "metadata_invalid",
                    "must be a text, a number or a truth value",
                );
            }
        }
        metadata
    }

    /// Reports a message that is too large as a whole, not counting what the installation's rules would add.
    fn size(self, entries: &Entries, pointer: &str) {
        let Entries { contents, deliveries, .. } = entries;
        if bytes(contents) > limits::CONTENT_BYTES {
            // An entry without a recipient is refused for that; its content is not sent and does not count.
            let bytes = bytes_sent(contents, deliveries);
            if bytes > limits::CONTENT_BYTES {
                let most = limits::CONTENT_BYTES;
                let detail = format!("holds {bytes} bytes of content in all; the limit is {most} bytes");
                self.faults.add_code(Code::E006, pointer, "content_too_long", detail);
            }
        }
        let most = most_deliveries(contents, deliveries);
        if most > limits::DELIVERIES {
            let detail = format!("makes {most} deliveries; the limit is {}", limits::DELIVERIES);
            self.faults.add(pointer, "too_many_recipients", detail);
        }
    }
}
