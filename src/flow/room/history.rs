//! History: rooms and their messages, as a member sees them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::chat_message::{ChatId, ChatMessage};
use crate::model::room::{Member, Room, RoomKind};
use crate::store::chat_message::ChatRow;
use crate::store::member::Marks;
use crate::store::room::{RoomOfUser, UnreadRoom};
use crate::store::{self, chat_message, member};

use super::access::{self, InRoom};
use super::tail::open;

/// A room with what its list shows.
#[derive(Debug, Clone)]
pub struct RoomShown {
    pub room: Room,
    /// The caller in it; None: it is public, and the caller is not a member.
    pub member: Option<Member>,
    /// The first members, at most `limits::PARTICIPANTS_SHOWN`.
    pub participants: Vec<Tsid>,
    /// The other's nickname, in a room of two.
    pub other_nickname: Option<String>,
    /// The last message, if the caller sees it.
    pub last: Option<ChatMessage>,
}

/// Adds what the list shows to rooms. Four statements, however many rooms there are.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn show(hub: &Hub, user_id: Tsid, rooms: Vec<RoomOfUser>) -> Result<Vec<RoomShown>> {
    let db = hub.store.api();
    let keys: Vec<(i16, Tsid)> = rooms.iter().map(|of| (of.room.shard, of.room.room_id)).collect();
    let mut participants: HashMap<Tsid, Vec<(Tsid, String)>> = HashMap::new();
    for (room_id, user_id, nickname) in member::of_rooms(db, &keys, limits::PARTICIPANTS_SHOWN).await? {
        participants.entry(room_id).or_default().push((user_id, nickname));
    }
    let lasts: Vec<(i16, Tsid, i64)> = rooms
        .iter()
        .filter(|of| of.room.head.last_seq > 0)
        .map(|of| (of.room.shard, of.room.room_id, of.room.head.last_seq))
        .collect();
    let lasts = chat_message::get_all(db, &lasts).await?;
    let mut lasts: HashMap<Tsid, ChatRow> = lasts.into_iter().map(|row| (row.room_id, row)).collect();
    Ok(rooms
        .into_iter()
        .map(|RoomOfUser { room, member }| {
            let of_room = participants.remove(&room.room_id).unwrap_or_default();
            let other = of_room.iter().find(|(id, _)| *id != user_id && room.kind == RoomKind::Individual);
            let member = member.filter(Member::is_in);
            let from_no = member.as_ref().map(|member| member.from_no);
            let last = lasts.remove(&room.room_id).filter(|row| from_no.is_some_and(|from_no| row.no > from_no));
            RoomShown {
                other_nickname: other.map(|(_, nickname)| nickname.clone()),
                participants: of_room.into_iter().map(|(id, _)| id).collect(),
                last: last.map(|row| open(hub, row)),
                room,
                member,
            }
        })
        .collect())
}

/// One room as the caller sees it.
///
/// # Errors
/// As `access::visible`.
pub async fn room(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<RoomShown> {
    let found = access::visible(hub, caller, room_id).await?;
    show(hub, caller.user_id(), vec![found]).await?.pop().ok_or(Error::NotFound)
}

/// Rooms that the caller is in, last active first; `below`: those whose last id is below it.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn rooms(
    hub: &Hub,
    caller: &UserCaller,
    below: Tsid,
    kind: Option<RoomKind>,
    rows: i64,
) -> Result<Vec<RoomShown>> {
    let found = store::room::of_user(hub.store.api(), caller.key(), below, kind, rows).await?;
    show(hub, caller.user_id(), found).await
}

/// Open public rooms of the caller's partner, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn public_rooms(hub: &Hub, caller: &UserCaller, below: Tsid, rows: i64) -> Result<Vec<RoomShown>> {
    let (shard, partner_id) = (caller.shard(), caller.partner_id());
    let found = store::room::public(hub.store.api(), shard, partner_id, caller.user_id(), below, rows).await?;
    show(hub, caller.user_id(), found).await
}

/// How many messages the caller has not read in each of its rooms, last active first.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn unread(hub: &Hub, user: (i16, Tsid)) -> Result<Vec<UnreadRoom>> {
    store::room::unread_of_user(hub.store.api(), user, limits::ROOMS_LIVE).await
}

/// These messages, by room: (shard, room, seq) of each.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn lasts(hub: &Hub, keys: &[(i16, Tsid, i64)]) -> Result<HashMap<Tsid, ChatMessage>> {
    let rows = chat_message::get_all(hub.store.api(), keys).await?;
    Ok(rows.into_iter().map(|row| (row.room_id, open(hub, row))).collect())
}

/// Where a page of messages lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Below a seq, newest first.
    Below(i64),
    /// Above a seq, oldest first.
    Above(i64),
    /// Around a message: half of them above it; newest first.
    Around(i64),
}

/// A page of a room's messages.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The number of the room's last event when the page was read, or before: what is above it comes by the stream.
    pub as_of: i64,
    /// One more than was asked for, if there are more.
    pub messages: Vec<ChatMessage>,
    pub marks: Vec<Marks>,
}

/// Messages of a room as a member sees them, up to `rows` and one more.
///
/// # Errors
/// As `access::as_member`.
pub async fn messages(hub: &Hub, caller: &UserCaller, room_id: Tsid, span: Span, rows: i64) -> Result<HistoryPage> {
    let db = hub.store.api();
    let InRoom { room, member } = access::as_member(hub, caller, room_id).await?;
    let (place, from_no) = ((room.shard, room_id), member.from_no);
    let found = match span {
        Span::Below(seq) => chat_message::before(db, place, seq, from_no, rows + 1).await?,
        Span::Above(seq) => chat_message::after(db, place, seq, from_no, rows + 1).await?,
        Span::Around(seq) => {
            let mut newer = chat_message::after(db, place, seq, from_no, rows / 2).await?;
            newer.reverse();
            let older = rows + 1 - i64::try_from(newer.len()).unwrap_or(0);
            newer.extend(chat_message::before(db, place, seq.saturating_add(1), from_no, older).await?);
            newer
        }
    };
    if let Some(newest) = found.iter().map(|row| row.no).max() {
        hub.marks.note(room.shard, room_id, caller.user_id(), 0, newest);
    }
    let messages = found.into_iter().map(|row| open(hub, row)).collect();
    Ok(HistoryPage { as_of: room.head.seq, messages, marks: marks(hub, &room).await? })
}

/// One message as a member sees it, with the members' marks.
///
/// # Errors
/// As `access::as_member`; `Error::NotFound` if there is no such message for the caller.
pub async fn message(hub: &Hub, caller: &UserCaller, id: ChatId) -> Result<(ChatMessage, Vec<Marks>)> {
    let InRoom { room, member } = access::as_member(hub, caller, id.room_id).await?;
    let row = row(hub, &room, &member, id.seq).await?;
    Ok((open(hub, row), marks(hub, &room).await?))
}

/// Who has read a message, and when.
///
/// # Errors
/// As `message`.
pub async fn reads(hub: &Hub, caller: &UserCaller, id: ChatId) -> Result<Vec<(Tsid, Option<DateTime<Utc>>)>> {
    let InRoom { room, member } = access::as_member(hub, caller, id.room_id).await?;
    let row = row(hub, &room, &member, id.seq).await?;
    if !room.settings.receipts {
        return Ok(Vec::new());
    }
    chat_message::reads(hub.store.api(), room.shard, id.room_id, row.no, row.sender_id).await
}

/// The row of a message that a member sees.
pub(super) async fn row(hub: &Hub, room: &Room, member: &Member, seq: i64) -> Result<ChatRow> {
    let id = ChatId { room_id: room.room_id, seq };
    let found = chat_message::get(hub.store.api(), room.shard, id).await?;
    found.filter(|row| row.no > member.from_no).ok_or(Error::NotFound)
}

/// The marks of a room's members, where receipts are shown.
async fn marks(hub: &Hub, room: &Room) -> Result<Vec<Marks>> {
    if !room.settings.receipts || i64::from(room.head.members) > limits::PARTICIPANTS_SHOWN {
        return Ok(Vec::new());
    }
    member::marks(hub.store.api(), room.shard, room.room_id).await
}
