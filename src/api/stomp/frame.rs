//! What happens, as MESSAGE frames.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::session::SharedMessage;
use crate::api::chat_message::{EventShape, MessageShape};
use crate::id::Tsid;
use crate::model::chat_message::ChatId;
use crate::model::stream::{EventBody, RoomEvent, RoomEventKind, StreamEvent};

/// A message with what happened to it, as `/topic/messages` has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageEvent {
    event_type: &'static str,
    #[serde(flatten)]
    message: MessageShape,
}

fn text(value: &impl Serialize) -> String {
    // Serialising shapes of texts and numbers cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether the viewer gets an event in a form of its own: the sender's has the tempId.
fn is_own(event: &RoomEvent, viewer: Tsid) -> bool {
    event.message.as_ref().is_some_and(|message| message.sender_id == viewer && message.temp_id.is_some())
}

/// What happened to a message, for `/topic/messages`. None for an event about something else. `before`: the number of
/// the event before it on this topic.
pub fn message_event(epoch: &str, viewer: Tsid, event: &StreamEvent, before: i64) -> Option<SharedMessage> {
    let EventBody::Room(happened) = &event.body else { return None };
    let message = happened.message.as_ref()?;
    let shape = || {
        let marks = (happened.kind == RoomEventKind::MessageCreated).then_some([].as_slice());
        let message = MessageShape::of(message.clone(), viewer, marks);
        text(&MessageEvent { event_type: happened.kind.as_str(), message })
    };
    let body = match is_own(happened, viewer) {
        true => shape(),
        false => event.texts.message.get_or_init(|| Arc::from(shape())).to_string(),
    };
    Some(numbered(&message.id.to_string(), epoch, event.seq, before, body))
}

/// An event of a room in its envelope, for `/topic/rooms`. None for one that tells nothing.
pub fn room_event(epoch: &str, room_id: Tsid, viewer: Tsid, event: &StreamEvent, version: u8) -> Option<SharedMessage> {
    let EventBody::Room(happened) = &event.body else { return None };
    let shape = || EventShape::of(epoch, room_id, viewer, event).map(|shape| text(&shape.in_version(version)));
    let body = match is_own(happened, viewer) || version != 1 {
        true => shape()?,
        false => match event.texts.envelope.get() {
            Some(made) => made.to_string(),
            None => {
                let made = shape()?;
                event.texts.envelope.get_or_init(|| Arc::from(made)).to_string()
            }
        },
    };
    let id = ChatId { room_id, seq: event.seq }.to_string();
    Some(numbered(&id, epoch, event.seq, event.seq - 1, body))
}

fn numbered(id: &str, epoch: &str, seq: i64, before: i64, body: String) -> SharedMessage {
    let (seq, before) = (seq.to_string(), before.to_string());
    SharedMessage::new(id, [("x-seq", seq.as_str()), ("x-prev", &before), ("x-epoch", epoch)], body)
}

/// The client has to begin anew from `head`.
pub fn reset(epoch: &str, id: Tsid, reason: &str, head: i64) -> SharedMessage {
    let body = json!({"eventType": "RESET", "reason": reason});
    numbered(&ChatId { room_id: id, seq: head }.to_string(), epoch, head, head, body.to_string())
}

/// A status of a message that is on its way, for its sender.
pub fn status(temp_id: &str, status: &str) -> Value {
    json!({"tempId": temp_id, "status": status})
}

/// The statuses of a message that is stored, for its sender, in their order.
pub fn statuses_saved(temp_id: &str, id: ChatId) -> [Value; 3] {
    let saved = json!({"tempId": temp_id, "status": "SAVED", "persistedId": id.to_string()});
    [status(temp_id, "SENT_TO_KAFKA"), status(temp_id, "PROCESSING"), saved]
}

/// Something that is stored nowhere. `id`: unique in the session.
pub fn passing(id: u64, body: &Value) -> SharedMessage {
    SharedMessage::new(format!("n-{id}"), [], body.to_string())
}
