//! Events of rooms and their members, within the transaction of what they tell.

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::stream::{RoomEventKind, StoredEvent, StreamKey};
use crate::store::room::NewRoomEvent;
use crate::store::{self, Conn};

/// Numbers that a transaction has taken; to be noted after its commit.
#[derive(Default)]
pub struct Taken(Vec<(StreamKey, i64)>);

impl Taken {
    /// Adds an event to a room's stream and returns its number. The caller holds the lock of its gate.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails; the transaction is lost then.
    pub async fn room_event(
        &mut self,
        hub: &Hub,
        tx: &mut Conn,
        room: (i16, Tsid),
        kind: RoomEventKind,
        actor: Tsid,
        about: Option<i64>,
    ) -> Result<i64> {
        let event = NewRoomEvent { event_id: hub.next_id(), event: kind.as_str(), about, actor: Some(actor) };
        let seq = store::room::add_event(tx, room.0, room.1, &event).await?;
        self.0.push((StreamKey::room(room.0, room.1), seq));
        Ok(seq)
    }

    /// Adds an event about a room to users' streams. After all locks of rooms: a transaction takes rooms first.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails; the transaction is lost then.
    pub async fn user_events(
        &mut self,
        hub: &Hub,
        tx: &mut Conn,
        room: (i16, Tsid),
        users: &[Tsid],
        event: StoredEvent,
    ) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let heads = store::stream::add_user_events(tx, room.0, users, hub.next_id(), event, room.1).await?;
        self.0.extend(heads.into_iter().map(|head| (StreamKey::user(head.shard, head.user_id), head.seq)));
        Ok(())
    }

    /// Notes the numbers for live connections. Call it after the commit.
    pub fn note(self, hub: &Hub) {
        hub.streams.note(self.0);
    }
}
