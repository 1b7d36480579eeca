//! Mark: how far members have read. Marks only move forward, and unread counts are differences, so all devices of a
//! user agree.

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::live::{LiveNote, LiveWhat};
use crate::shutdown::may_die_at;
use crate::store;
use crate::store::member::NewMark;

use super::access::{self, InRoom};
use super::history;

/// How many messages a user has not read in a room, after a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    pub room_id: Tsid,
    pub unread: i64,
    /// The number among the room's messages up to which it has read.
    pub read_no: i64,
}

/// Marks a room's messages as read, up to one (its seq) or all. Durable when it returns; never goes back.
///
/// # Errors
/// As `access::as_member`; `Error::NotFound` if there is no such message for the caller. `Error::Unavailable` if the
/// database fails; the mark may be moved.
pub async fn read_up_to(hub: &Hub, caller: &UserCaller, room_id: Tsid, seq: Option<i64>) -> Result<Unread> {
    let InRoom { room, member } = access::as_member(hub, caller, room_id).await?;
    let no = match seq {
        None => room.head.no,
        Some(seq) => history::row(hub, &room, &member, seq).await?.no,
    };
    let mark = NewMark { shard: room.shard, room_id, user_id: caller.user_id(), read_no: no, delivered_no: no };
    let moved = store::member::mark(hub.store.api(), &[mark], hub.clock.now(), room.settings.receipts).await?;
    if !moved.is_empty() && room.settings.receipts {
        let what = LiveWhat::Read(seq.unwrap_or(room.head.last_seq));
        hub.live_notes.note(LiveNote { room_id, user_id: caller.user_id(), what });
    }
    let InRoom { room, member } = access::as_member(hub, caller, room_id).await?;
    Ok(Unread { room_id, unread: member.unread(&room.head), read_no: member.read_no })
}

/// Writes marks that wait. Returns whether there are more.
///
/// # Errors
/// `Error::Unavailable` if the database fails; they are written by the next run.
pub async fn write_waiting(hub: &Hub) -> Result<bool> {
    let marks = hub.marks.take(limits::MARKS_ROUND);
    if marks.is_empty() {
        return Ok(false);
    }
    may_die_at("marks.before_commit");
    match store::member::mark(hub.store.engine(), &marks, hub.clock.now(), true).await {
        Ok(_) => Ok(marks.len() == limits::MARKS_ROUND),
        Err(e) => {
            hub.marks.put_back(&marks);
            Err(e)
        }
    }
}
