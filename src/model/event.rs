//! What we tell: every promised transition of a delivery has exactly one event, numbered 1.. per delivery. A partner's
//! endpoints get those they ask for, each as a delivery of a message of its own (`messages.about` names what it tells of).

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::channel::Channel;
use super::lane::Lane;
use crate::id::Tsid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The message as a whole, as number 0: it is stored.
    MessageAccepted,
    Sent,
    Delivered,
    Failed,
    Expired,
    Canceled,
    Undetermined,
    /// What had ended is tried again, because somebody asked.
    Redriven,
    /// It went on over another channel.
    Fallback,
    /// The message as a whole, once, after its last delivery ended.
    MessageCompleted,
    /// What was enqueued in SQL could not become a message.
    MessageRefused,
    EndpointDisabled,
    /// Sent because its owner wants to see one arrive.
    EndpointTest,
}

pub const EVENT_KINDS: [EventKind; 13] = [
    EventKind::MessageAccepted,
    EventKind::Sent,
    EventKind::Delivered,
    EventKind::Failed,
    EventKind::Expired,
    EventKind::Canceled,
    EventKind::Undetermined,
    EventKind::Redriven,
    EventKind::Fallback,
    EventKind::MessageCompleted,
    EventKind::MessageRefused,
    EventKind::EndpointDisabled,
    EventKind::EndpointTest,
];

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::MessageAccepted => "message.accepted",
            EventKind::Sent => "delivery.sent",
            EventKind::Delivered => "delivery.delivered",
            EventKind::Failed => "delivery.failed",
            EventKind::Expired => "delivery.expired",
            EventKind::Canceled => "delivery.canceled",
            EventKind::Undetermined => "delivery.undetermined",
            EventKind::Redriven => "delivery.redriven",
            EventKind::Fallback => "delivery.fallback",
            EventKind::MessageCompleted => "message.completed",
            EventKind::MessageRefused => "message.refused",
            EventKind::EndpointDisabled => "endpoint.disabled",
            EventKind::EndpointTest => "endpoint.test",
        }
    }

    /// Whether an endpoint can ask for it: a test goes to the one that is tested, whatever it asks for.
    pub fn is_subscribable(self) -> bool {
        self != EventKind::EndpointTest
    }
}

impl std::str::FromStr for EventKind {
    type Err = ();
    fn from_str(text: &str) -> Result<EventKind, ()> {
        EVENT_KINDS.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// Events of the message as a whole are those of its number 0, with these numbers.
pub const WHOLE_MESSAGE_NO: i16 = 0;
pub const ACCEPTED_SEQ: i16 = 1;
pub const COMPLETED_SEQ: i16 = 2;

/// What happened, as the message that tells of it keeps it (`detail.contents[0].event`). Written by statements too
/// (`sql/delivery/settle.sql`, `sql/message/insert.sql`): names and forms are theirs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPayload {
    pub event: String,
    /// Of the delivery it is about; 0: the message as a whole.
    #[serde(default)]
    pub no: i16,
    #[serde(default)]
    pub seq: i16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub occurred_at: DateTime<Utc>,
    /// Fields of its own, beside those that every event has.
    #[serde(rename = "more", default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl EventPayload {
    /// Stable: the same event has the same id however often, and to whomever, it is sent. `about` is the message it tells of.
    pub fn event_id(&self, about: Tsid) -> String {
        format!("{about}-{}-{}", self.no, self.seq)
    }

    /// The body of its webhook: the same bytes each time.
    pub fn body(&self, about: &EventSubject) -> Vec<u8> {
        let channel = self.lane.map(|lane| Lane(lane).channel()).map(Channel::as_str);
        let of_message = about.has_message.then(|| about.message_id.to_string());
        let delivery_id = (self.no > WHOLE_MESSAGE_NO).then(|| format!("{}-{}", about.message_id, self.no));
        let mut body = serde_json::json!({
            "eventId": self.event_id(about.message_id),
            "event": self.event,
            "v": 1,
            "seq": self.seq,
            "occurredAt": self.occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "partnerId": about.partner_id.to_string(),
            "messageId": of_message,
            "clientMsgId": about.client_msg_id,
            "type": about.kind,
            "deliveryId": delivery_id,
            "channel": channel,
            "status": self.status,
            "attempt": self.attempt,
            "provider": self.provider,
            "errorCode": self.code,
            "errorReason": self.reason,
        });
        if let Value::Object(fields) = &mut body {
            fields.extend(self.extra.clone());
            if let Some(content) = &about.content {
                fields.insert("content".into(), content.clone());
            }
        }
        body.to_string().into_bytes()
    }
}

/// What an event is about, as far as its webhook says it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSubject {
    pub partner_id: Tsid,
    pub message_id: Tsid,
    /// Whether there is a message of the partner's with that id: some events tell of an endpoint, or of what was refused.
    pub has_message: bool,
    /// Its type, so that the hub's own messages (`ENDPOINT_DISABLED`) are told from the partner's.
    pub kind: Option<String>,
    pub client_msg_id: Option<String>,
    /// What the message said, for endpoints that ask for it and may.
    pub content: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S0-44: a body says what happened to what, and is the same bytes each time.
    #[test]
    fn a_body_is_the_same_each_time() {
        let told = EventPayload {
            event: "delivery.failed".into(),
            no: 2,
            seq: 1,
            attempt: Some(3),
            lane: Some(0),
            status: Some("FAILED".into()),
            code: Some("550".into()),
            occurred_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            ..EventPayload::default()
        };
        let about = EventSubject {
            partner_id: Tsid(1),
            message_id: Tsid(2),
            has_message: true,
            kind: Some("ORDER".into()),
            client_msg_id: Some("o-1".into()),
            content: None,
        };
        let body: Value = serde_json::from_slice(&told.body(&about)).unwrap();
        assert_eq!(body["eventId"], "0000000000002-2-1");
        assert_eq!((&body["deliveryId"], &body["channel"]), (&"0000000000002-2".into(), &"EMAIL".into()));
        assert_eq!(body["type"], "ORDER");
        assert_eq!(body["occurredAt"], "2027-01-15T08:00:00.000Z");
        assert_eq!(body["errorReason"], Value::Null);
        let stored: EventPayload = serde_json::from_value(serde_json::to_value(&told).unwrap()).unwrap();
        assert_eq!(stored.body(&about), told.body(&about));
    }

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        assert!(EVENT_KINDS.into_iter().all(|kind| kind.as_str().parse() == Ok(kind)));
    }
}
