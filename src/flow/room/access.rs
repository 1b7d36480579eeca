//! Access: finds a room for a user, and decides what it may do there.

use crate::error::{Code, Error, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::user::{Door, UserCaller};
use crate::model::room::{Deed, Member, Room, RoomKind, SendRefusal, Visibility, may};
use crate::model::stream::{EventBody, ResetReason, StreamEvent, StreamKey};
use crate::store;
use crate::store::room::RoomOfUser;

use super::tail;

/// A room, and its member on whose behalf the request runs.
#[derive(Debug, Clone, PartialEq)]
pub struct InRoom {
    pub room: Room,
    pub member: Member,
}

/// A room that the caller may know of: it is a member, or the room is public.
///
/// # Errors
/// `Error::NotFound` if there is no such room for the caller; `banned` if it is public and the caller was removed for
/// good; `Error::Unavailable` if the database fails.
pub async fn visible(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<RoomOfUser> {
    let (shard, partner_id) = (caller.shard(), caller.partner_id());
    let found = store::room::get(hub.store.api(), shard, partner_id, room_id, caller.user_id()).await?;
    let found = found.ok_or(Error::NotFound)?;
    let is_in = found.member.as_ref().is_some_and(Member::is_in);
    if found.room.visibility == Visibility::Public && found.member.as_ref().is_some_and(|m| m.banned_at.is_some()) {
        return Err(send_refused(SendRefusal::Banned));
    }
    if is_in || found.room.visibility == Visibility::Public { Ok(found) } else { Err(Error::NotFound) }
}

/// A room in which the caller is a member.
///
/// # Errors
/// `Error::NotFound` if there is no such room for the caller; `not_a_member` if it is public and the caller is not in
/// it; `Error::Unavailable` if the database fails.
pub async fn as_member(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<InRoom> {
    let RoomOfUser { room, member } = visible(hub, caller, room_id).await?;
    match member.filter(Member::is_in) {
        Some(member) => Ok(InRoom { room, member }),
        None => Err(not_a_member()),
    }
}

/// A room in which the caller may do this.
///
/// # Errors
/// As `as_member`; `forbidden` if the member's role does not allow it.
pub async fn permitted(hub: &Hub, caller: &UserCaller, room_id: Tsid, deed: Deed) -> Result<InRoom> {
    let found = as_member(hub, caller, room_id).await?;
    check(caller, &found, deed)?;
    Ok(found)
}

/// Checks that the caller may do this in a room. The partner's own key may do what an owner may.
///
/// # Errors
/// `forbidden` if the member's role does not allow it.
pub fn check(caller: &UserCaller, found: &InRoom, deed: Deed) -> Result<()> {
    let InRoom { room, member } = found;
    let role = match caller.door {
        Door::OnBehalf(_) => crate::model::room::MemberRole::Owner,
        Door::Token { .. } | Door::Subscriber => member.role,
    };
    if may(role, room.kind, room.visibility, deed) {
        return Ok(());
    }
    let detail = match room.kind {
        RoomKind::Group => "your role in this room does not allow this; an owner can do it, or give you the role",
        RoomKind::Individual => "a room of two has no owner; this cannot be done in it",
    };
    Err(room_refused(403, "forbidden", detail))
}

/// Whether the caller is blocked by the other one in a room of two.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn is_blocked(hub: &Hub, caller: &UserCaller, room: &Room) -> Result<bool> {
    if room.kind == RoomKind::Group {
        return Ok(false);
    }
    let db = hub.store.api();
    let mut members = store::member::marks(db, room.shard, room.room_id).await?.into_iter();
    match members.find(|member| member.user_id != caller.user_id()) {
        Some(other) => store::user_block::exists(db, room.shard, other.user_id, caller.user_id()).await,
        None => Ok(false),
    }
}

/// The refusal of a user that is not in a public room.
pub fn not_a_member() -> Error {
    room_refused(403, "not_a_member", "you are not a member of this room; enter it first")
}

/// A refusal with the code of its status.
pub fn room_refused(status: u16, reason: &'static str, detail: impl Into<String>) -> Error {
    let code = if status == 403 { Code::E002 } else { Code::E001 };
    Refusal::new(status, reason, detail).with_code(code).into()
}

/// The refusal of a message.
pub fn send_refused(why: SendRefusal) -> Error {
    match why {
        SendRefusal::NotAMember => not_a_member(),
        SendRefusal::Closed => closed(),
        SendRefusal::Banned => room_refused(403, "banned", "you were removed from this room for good"),
        SendRefusal::Blocked => room_refused(403, "blocked", "the other user takes no messages from you"),
        SendRefusal::Silenced => room_refused(
            403,
            "silenced",
            "you may not write in this room for now; your silencedUntil among its participants says until when",
        ),
        SendRefusal::AdminsOnly => room_refused(403, "forbidden", "only owners and admins write in this room"),
        SendRefusal::SlowMode(seconds) => {
            let detail = format!("this room is in slow mode: one message in {seconds} seconds");
            Error::Limited { reason: "rate_limited", detail, retry_after_s: seconds.unsigned_abs() }
        }
    }
}

/// The refusal of what a closed room does not take.
pub fn closed() -> Error {
    room_refused(409, "room_closed", "the room is closed; make another one")
}

/// The refusal of a request that names another user as the one who acts.
pub fn forbidden_for_another() -> Error {
    room_refused(403, "forbidden", "another user is named than the one that signed in; name yourself by your userId")
}

/// What happened in a room after a number, as far as a member sees it, and the number of the last event. Events of
/// messages from before the member came are left out.
///
/// # Errors
/// As `as_member`. Inside: the reason why the numbers do not go on.
pub async fn events(
    hub: &Hub,
    caller: &UserCaller,
    room_id: Tsid,
    after: i64,
    most: usize,
) -> Result<(i64, std::result::Result<Vec<StreamEvent>, ResetReason>)> {
    let InRoom { room, member } = as_member(hub, caller, room_id).await?;
    let key = StreamKey::room(room.shard, room_id);
    let read = tail::tails(hub, &[(key, after)], most).await?.remove(&key).unwrap_or_default();
    let head = read.head;
    let visible = |event: &StreamEvent| is_visible(event, member.from_no);
    Ok((head, read.after(after, most).map(|events| events.into_iter().filter(visible).collect())))
}

/// Whether a member that sees messages above `from_no` sees this event.
pub fn is_visible(event: &StreamEvent, from_no: i64) -> bool {
    match &event.body {
        EventBody::Room(happened) => happened.message.as_ref().is_none_or(|message| message.no > from_no),
        _ => true,
    }
}
