//! Events: every transition that partners can subscribe to has exactly one event, numbered from 1 for each delivery. An
//! endpoint gets the events that it subscribed to, each as a WEBHOOK delivery of a message of its own (`messages.about`
//! names the message that the event reports on).

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::channel::Channel;
use super::lane::Lane;
use crate::id::Tsid;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The message was stored. Event of the whole message, number 0.
    MessageAccepted,
    Sent,
    Delivered,
    Failed,
    Expired,
    Canceled,
    Undetermined,
    /// A dead letter was redriven.
    Redriven,
    /// A fallback replaced the delivery.
    Fallback,
    /// The last delivery of the message settled; sent once. Event of the whole message, number 0.
    MessageCompleted,
    /// A request enqueued in SQL was refused.
    MessageRefused,
    /// The hub disabled an endpoint.
    EndpointDisabled,
    /// A test event that the endpoint's owner asked for.
    EndpointTest,
}

/// Every kind of event.
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
    /// The stable name in the database and the API, such as `delivery.sent`.
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

    /// Whether an endpoint can subscribe to it. A test event goes to the tested endpoint whatever it subscribed to.
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

/// The delivery number under which events of the whole message are stored …
pub const WHOLE_MESSAGE_NO: i16 = 0;
/// … and the sequence number of `message.accepted` …
pub const ACCEPTED_SEQ: i16 = 1;
/// … and of `message.completed`.
pub const COMPLETED_SEQ: i16 = 2;

/// An event as its webhook message stores it (`detail.contents[0].event`). SQL writes it too
/// (`sql/delivery/settle.sql`, `sql/message/insert.sql`), so the serde names are fixed by them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPayload {
    pub event: String,
    /// Number of the delivery; 0: the whole message.
    #[serde(default)]
    pub no: i16,
    /// Sequence number of the event within the delivery, from 1.
    #[serde(default)]
    pub seq: i16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i16>,
    /// Lane of the delivery, from which the webhook's `channel` is derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A word of `DELIVERY_REASONS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub occurred_at: DateTime<Utc>,
    /// Fields of this kind of event, beside those that every event has.
    #[serde(rename = "more", default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl EventPayload {
    /// The event's id, `{message}-{no}-{seq}`: the same each time the event is sent, to every endpoint. `about`: the
    /// message that the event reports on.
    pub fn event_id(&self, about: Tsid) -> String {
        format!("{about}-{}-{}", self.no, self.seq)
    }

    /// The JSON body of the event's webhook. The same arguments give the same bytes.
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

/// The subject of an event, as its webhook names it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSubject {
    pub partner_id: Tsid,
    pub message_id: Tsid,
    /// Whether the partner has a message with this id. False for events about an endpoint or a refused request.
    pub has_message: bool,
    /// The message's type. It tells the hub's own messages (`ENDPOINT_DISABLED`) from the partner's.
    pub kind: Option<String>,
    pub client_msg_id: Option<String>,
    /// The content of the message, for endpoints that ask for it and are allowed to get it.
    pub content: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S0-44: a body names the event and its subject, and is the same bytes each time.
    #[test]
    fn event_body_is_the_same_each_time() {
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
    fn every_event_kind_parses_from_its_name() {
        assert!(EVENT_KINDS.into_iter().all(|kind| kind.as_str().parse() == Ok(kind)));
    }
}
