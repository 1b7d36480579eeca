//! Streams: the numbered changes of one user's inbox and rooms, or of one room. A stream's numbers begin at 1 and have
//! no gap; a client keeps (epoch, last number) and asks for what came after it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};

use super::chat_message::ChatMessage;
use super::inbox::{InboxCounts, InboxItem};
use crate::id::Tsid;

/// The kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// Of one user: its inbox, and the rooms that it enters and leaves.
    User,
    /// Of one room.
    Room,
}

/// Every kind.
pub const STREAM_KINDS: [StreamKind; 2] = [StreamKind::User, StreamKind::Room];

/// A stream: its kind, and the row it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    pub kind: StreamKind,
    pub shard: i16,
    pub id: Tsid,
}

impl StreamKey {
    /// The stream of a user.
    pub fn user(shard: i16, user_id: Tsid) -> StreamKey {
        StreamKey { kind: StreamKind::User, shard, id: user_id }
    }

    /// The stream of a room.
    pub fn room(shard: i16, room_id: Tsid) -> StreamKey {
        StreamKey { kind: StreamKind::Room, shard, id: room_id }
    }
}

/// Numbers that streams have reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamHints {
    pub heads: HashMap<StreamKey, i64>,
    /// Any stream may have gone on.
    pub hints_lost: bool,
}

impl StreamHints {
    /// Adds the number that a stream has reached.
    pub fn add(&mut self, key: StreamKey, seq: i64) {
        let head = self.heads.entry(key).or_insert(seq);
        *head = seq.max(*head);
    }
}

/// A numbered change of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamEvent {
    pub seq: i64,
    pub body: EventBody,
    pub texts: EventTexts,
}

impl StreamEvent {
    /// An event that was not shown to any connection yet.
    pub fn new(seq: i64, body: EventBody) -> StreamEvent {
        StreamEvent { seq, body, texts: EventTexts::default() }
    }
}

/// An event as connections get it, made once for all that get the same: its message, and its envelope.
#[derive(Debug, Clone, Default)]
pub struct EventTexts {
    pub message: OnceLock<Arc<str>>,
    pub envelope: OnceLock<Arc<str>>,
}

impl PartialEq for EventTexts {
    fn eq(&self, _other: &EventTexts) -> bool {
        // They follow from the event.
        true
    }
}

/// What changed. A replayed event shows its subject as it is now: a text that was erased comes back through no stream.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// An item arrived, or arrived again.
    ItemArrived(Box<InboxItem>),
    /// An item was read, archived or snoozed, or the reverse.
    ItemChanged(Box<InboxItem>),
    /// The user looked at its inbox.
    Seen,
    /// All items were read; of one type, if it is named.
    AllRead { kind: Option<String> },
    /// The user came into a room.
    RoomEntered(Tsid),
    /// The user left a room, or was removed.
    RoomLeft(Tsid),
    /// Something happened in a room.
    Room(Box<RoomEvent>),
    /// Takes a number and tells nothing: its item arrived again later, or is gone.
    Nothing,
}

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomEvent {
    pub kind: RoomEventKind,
    pub at: DateTime<Utc>,
    /// The user that did it.
    pub actor: Option<Tsid>,
    /// The message's number in the stream; of a member's event the user.
    pub about: Option<i64>,
    /// The message, as it is now.
    pub message: Option<ChatMessage>,
}

/// The kinds of events in rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomEventKind {
    /// The message's own row is the event.
    MessageCreated,
    MessageEdited,
    MessageDeleted,
    MemberJoined,
    MemberLeft,
    MemberRemoved,
    MemberChanged,
    RoomCreated,
    RoomChanged,
    RoomClosed,
}

/// Every one of them.
pub const ROOM_EVENT_KINDS: [RoomEventKind; 10] = [
    RoomEventKind::MessageCreated,
    RoomEventKind::MessageEdited,
    RoomEventKind::MessageDeleted,
    RoomEventKind::MemberJoined,
    RoomEventKind::MemberLeft,
    RoomEventKind::MemberRemoved,
    RoomEventKind::MemberChanged,
    RoomEventKind::RoomCreated,
    RoomEventKind::RoomChanged,
    RoomEventKind::RoomClosed,
];

impl RoomEventKind {
    /// The stable word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            RoomEventKind::MessageCreated => "MESSAGE_CREATED",
            RoomEventKind::MessageEdited => "MESSAGE_EDITED",
            RoomEventKind::MessageDeleted => "MESSAGE_DELETED",
            RoomEventKind::MemberJoined => "MEMBER_JOINED",
            RoomEventKind::MemberLeft => "MEMBER_LEFT",
            RoomEventKind::MemberRemoved => "MEMBER_REMOVED",
            RoomEventKind::MemberChanged => "MEMBER_CHANGED",
            RoomEventKind::RoomCreated => "ROOM_CREATED",
            RoomEventKind::RoomChanged => "ROOM_CHANGED",
            RoomEventKind::RoomClosed => "ROOM_CLOSED",
        }
    }
}

impl std::str::FromStr for RoomEventKind {
    type Err = ();
    fn from_str(text: &str) -> Result<RoomEventKind, ()> {
        ROOM_EVENT_KINDS.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// The events of users' streams that have a row in `stream_events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredEvent {
    ItemChanged,
    /// Stands where an item was that arrived again.
    ItemMoved,
    Seen,
    AllRead,
    RoomEntered,
    RoomLeft,
}

/// Every one of them.
pub const STORED_EVENTS: [StoredEvent; 6] = [
    StoredEvent::ItemChanged,
    StoredEvent::ItemMoved,
    StoredEvent::Seen,
    StoredEvent::AllRead,
    StoredEvent::RoomEntered,
    StoredEvent::RoomLeft,
];

impl StoredEvent {
    /// The stable word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            StoredEvent::ItemChanged => "ITEM_CHANGED",
            StoredEvent::ItemMoved => "ITEM_MOVED",
            StoredEvent::Seen => "INBOX_SEEN",
            StoredEvent::AllRead => "INBOX_READ",
            StoredEvent::RoomEntered => "ROOM_ENTERED",
            StoredEvent::RoomLeft => "ROOM_LEFT",
        }
    }
}

/// Why a client has to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The numbers belong to another history of the database: a restored backup, or a standby that lost its end.
    Epoch,
    /// Some of what came after is no longer kept.
    Gap,
    /// More came after than is replayed.
    TooFar,
}

impl ResetReason {
    /// The stable word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ResetReason::Epoch => "epoch",
            ResetReason::Gap => "gap",
            ResetReason::TooFar => "too_far",
        }
    }
}

/// What a connection gets about its stream, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamNews {
    /// The next events, and the counts after them.
    Events { events: Vec<Arc<StreamEvent>>, counts: Option<InboxCounts> },
    /// The numbers do not go on: read the state again, and go on from here.
    Reset { reason: ResetReason, head: i64, counts: Option<InboxCounts> },
}

/// What was read of a stream after a number.
#[derive(Debug, Clone, Default)]
pub struct StreamTail {
    /// In the order of their numbers.
    pub events: Vec<StreamEvent>,
    /// The number of the stream's last event.
    pub head: i64,
}

impl StreamTail {
    /// The events that follow `after` without a gap; and whether they reach the head, or as far as `most` events go.
    /// A stream that is behind `after` belongs to another history.
    ///
    /// # Errors
    /// The reason why the numbers do not go on.
    pub fn after(self, after: i64, most: usize) -> Result<Vec<StreamEvent>, ResetReason> {
        if self.head < after {
            return Err(ResetReason::Epoch);
        }
        let is_next = (after + 1..).zip(&self.events).all(|(expected, event)| expected == event.seq);
        let last = self.events.last().map_or(after, |event| event.seq);
        if !is_next || last < self.head && self.events.len() < most {
            return Err(ResetReason::Gap);
        }
        Ok(self.events)
    }
}

/// A client's position, `{epoch}.{seq}`, as the `id` of an event has it.
pub fn parse_position(text: &str) -> Option<(&str, i64)> {
    let (epoch, seq) = text.rsplit_once('.')?;
    let canonical = seq == "0" || !seq.starts_with('0') && seq.bytes().all(|b| b.is_ascii_digit());
    if canonical { Some((epoch, seq.parse().ok()?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(seqs: &[i64], head: i64) -> StreamTail {
        let event = |seq: &i64| StreamEvent::new(*seq, EventBody::Nothing);
        StreamTail { events: seqs.iter().map(event).collect(), head }
    }

    /// L2: a tail is whole, or the client begins anew; nothing is skipped silently.
    #[test]
    fn tail_with_a_missing_number_is_a_reset() {
        let seqs = |tail: StreamTail, after, most| {
            tail.after(after, most).map(|events| events.iter().map(|event| event.seq).collect::<Vec<_>>())
        };
        assert_eq!(seqs(tail(&[], 4), 4, 9), Ok(vec![]));
        assert_eq!(seqs(tail(&[5, 6], 6), 4, 9), Ok(vec![5, 6]));
        assert_eq!(seqs(tail(&[5, 6], 9), 4, 2), Ok(vec![5, 6]), "as many as were asked for");
        for (missing, head) in [(vec![], 5), (vec![6], 6), (vec![5, 7], 7), (vec![5], 6), (vec![5, 5], 6)] {
            assert_eq!(seqs(tail(&missing, head), 4, 9), Err(ResetReason::Gap), "{missing:?} of {head}");
        }
        assert_eq!(seqs(tail(&[], 3), 4, 9), Err(ResetReason::Epoch));
    }

    #[test]
    fn position_is_read_only_as_it_was_written() {
        assert_eq!(parse_position("a1b2.17"), Some(("a1b2", 17)));
        assert_eq!(parse_position("a1b2.0"), Some(("a1b2", 0)));
        for bad in ["", "17", "a.", "a.-1", "a.01", "a.+1", "a.99999999999999999999"] {
            assert_eq!(parse_position(bad), None, "{bad}");
        }
    }
}
