//! Tails: what happened in rooms after a number.

use std::collections::HashMap;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::chat_message::{ChatContent, ChatMessage};
use crate::model::stream::{EventBody, RoomEvent, RoomEventKind, StreamEvent, StreamKey, StreamTail};
use crate::store::chat_message::ChatRow;
use crate::store::stream::{RoomEventStored, room_tails};

/// What these rooms' streams hold after a number, at most `most` events of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn tails(hub: &Hub, after: &[(StreamKey, i64)], most: usize) -> Result<HashMap<StreamKey, StreamTail>> {
    let mut tails: HashMap<StreamKey, StreamTail> = HashMap::new();
    if after.is_empty() {
        return Ok(tails);
    }
    let asked: Vec<(i16, Tsid, i64)> = after.iter().map(|(key, seq)| (key.shard, key.id, *seq)).collect();
    let rows = room_tails(hub.store.engine(), &asked, i64::try_from(most).unwrap_or(i64::MAX)).await?;
    for row in rows {
        let tail = tails.entry(StreamKey::room(row.shard, row.room_id)).or_default();
        tail.head = row.head;
        tail.events.extend(row.event.map(|event| stream_event(hub, event)));
    }
    Ok(tails)
}

fn stream_event(hub: &Hub, event: RoomEventStored) -> StreamEvent {
    let seq = event.seq;
    let body = match event.event.parse::<RoomEventKind>() {
        Ok(kind) => EventBody::Room(Box::new(RoomEvent {
            kind,
            at: event.event_id.time(),
            actor: event.actor,
            about: event.about,
            message: event.message.map(|row| open(hub, row)),
        })),
        // Of a newer program.
        Err(()) => EventBody::Nothing,
    };
    StreamEvent::new(seq, body)
}

/// A message from its row. One that cannot be opened is shown without a text.
pub fn open(hub: &Hub, row: ChatRow) -> ChatMessage {
    match row.content(&hub.keyring) {
        Ok(content) => row.with(content),
        Err(e) => {
            tracing::warn!(error = %e, "a chat message cannot be opened; it is shown without its text");
            row.with(ChatContent::default())
        }
    }
}
