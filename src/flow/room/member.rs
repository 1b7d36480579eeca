//! Members: who comes into a room and goes, and what they may do there.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::error::{Error, Result};
use crate::flow::user::session::audit;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::user::UserCaller;
use crate::model::room::{Deed, EntryRefusal, Member, MemberRole, Notify, Room, RoomKind, may_enter};
use crate::model::stream::{RoomEventKind, StoredEvent};
use crate::store::audit::AuditEntry;
use crate::store::member::MemberProfile;
use crate::store::room::RoomOfUser;
use crate::store::{self, Conn};

use super::access::{self, InRoom, closed, room_refused};
use super::change::room_object;
use super::event::Taken;
use super::make::check_users;

/// Members of a room.
pub struct ShownMembers {
    pub profiles: Vec<MemberProfile>,
    /// The room shows how far others have read.
    pub shows_marks: bool,
}

/// A page of a room's members, by userId.
///
/// # Errors
/// As `access::as_member`.
pub async fn list(hub: &Hub, caller: &UserCaller, room_id: Tsid, above: Tsid, rows: i64) -> Result<ShownMembers> {
    let InRoom { room, .. } = access::as_member(hub, caller, room_id).await?;
    let profiles = store::member::list(hub.store.api(), room.shard, room_id, above, rows).await?;
    Ok(ShownMembers { profiles, shows_marks: room.settings.receipts })
}

/// Some members of a room.
///
/// # Errors
/// As `access::as_member`.
pub async fn some(hub: &Hub, caller: &UserCaller, room_id: Tsid, users: &[Tsid]) -> Result<ShownMembers> {
    let InRoom { room, .. } = access::as_member(hub, caller, room_id).await?;
    let profiles = store::member::some(hub.store.api(), room.shard, room_id, users).await?;
    Ok(ShownMembers { profiles, shows_marks: room.settings.receipts })
}

/// Invites users into a room: all, or none. Those who are in it already stay as they are. Returns those who came.
///
/// # Errors
/// As `access::permitted`; `user_unknown`, `blocked`, `banned`, `room_full`, `room_closed`. `Error::Unavailable` if the
/// database fails; they may be in it.
pub async fn invite(hub: &Hub, caller: &UserCaller, room_id: Tsid, users: &[Tsid]) -> Result<Vec<Tsid>> {
    let found = access::permitted(hub, caller, room_id, Deed::Invite).await?;
    let mut others: Vec<Tsid> = users.iter().copied().filter(|id| *id != caller.user_id()).collect();
    others.sort_unstable();
    others.dedup();
    check_users(hub, caller, &others).await?;
    come_in(hub, caller, &found.room, &others).await
}

/// Enters a public room. Again is the same.
///
/// # Errors
/// `Error::NotFound` if there is no such room for the caller; `banned`, `room_full`, `room_closed`, `not_a_member` if
/// it is by invitation only. `Error::Unavailable` if the database fails; the caller may be in it.
pub async fn enter(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<()> {
    let RoomOfUser { room, member } = access::visible(hub, caller, room_id).await?;
    if member.as_ref().is_some_and(Member::is_in) {
        return Ok(());
    }
    match may_enter(&room, member.as_ref()).first() {
        None => come_in(hub, caller, &room, &[caller.user_id()]).await.map(drop),
        Some(EntryRefusal::Closed) => Err(closed()),
        Some(EntryRefusal::Banned) => Err(banned()),
        Some(EntryRefusal::NotInvited) => {
            Err(room_refused(403, "not_a_member", "this room is entered by invitation; ask an owner or admin of it"))
        }
        Some(EntryRefusal::Full) => Err(full(&room)),
    }
}

async fn come_in(hub: &Hub, caller: &UserCaller, room: &Room, users: &[Tsid]) -> Result<Vec<Tsid>> {
    let (place, now) = ((room.shard, room.room_id), hub.clock.now());
    let mut tx = hub.store.begin().await?;
    let head = store::room::lock(&mut tx, room.shard, room.room_id).await?;
    if room.closed_at.is_some() {
        return Err(closed());
    }
    let known = store::member::get(&mut *tx, room.shard, room.room_id, users).await?;
    if known.iter().any(|member| member.banned_at.is_some()) {
        return Err(banned());
    }
    let new: Vec<(Tsid, MemberRole)> = users
        .iter()
        .filter(|id| !known.iter().any(|member| member.user_id == **id && member.is_in()))
        .map(|id| (*id, MemberRole::Member))
        .collect();
    let from_no = if room.settings.history_for_new { 0 } else { head.no };
    let came = store::member::insert(&mut *tx, room.shard, room.room_id, &new, from_no, now).await?;
    let count = i32::try_from(came.len()).unwrap_or(i32::MAX);
    store::room::add_members(&mut *tx, room.shard, room.room_id, count).await?.ok_or_else(|| full(room))?;
    let mut taken = Taken::default();
    for user_id in &came {
        let kind = RoomEventKind::MemberJoined;
        taken.room_event(hub, &mut tx, place, kind, caller.user_id(), Some(user_id.0)).await?;
    }
    taken.user_events(hub, &mut tx, place, &came, StoredEvent::RoomEntered).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok(came)
}

/// Leaves a room. The rights of the last owner go to the oldest admin, else to the oldest member; a room without
/// members is closed. A room of two is cleared and hidden for the caller until something is written.
///
/// # Errors
/// As `access::as_member`. `Error::Unavailable` if the database fails; the caller may have left.
pub async fn leave(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<()> {
    let InRoom { room, .. } = access::as_member(hub, caller, room_id).await?;
    if room.kind == RoomKind::Individual {
        let mut tx = hub.store.begin().await?;
        let head = store::room::lock(&mut tx, room.shard, room_id).await?;
        store::member::hide(&mut *tx, room.shard, room_id, caller.user_id(), head.no).await?;
        return Ok(tx.commit().await?);
    }
    let mut tx = hub.store.begin().await?;
    let taken = take_out(hub, &mut tx, caller.user_id(), &room, caller.user_id(), Leaving::Left).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok(())
}

/// Removes a member from a room, or oneself. `ban`: Some(true): it cannot come back; Some(false): one that was removed
/// so can.
///
/// # Errors
/// As `access::permitted`; `Error::NotFound` if there is no such member; `owner_stays` for the owner.
/// `Error::Unavailable` if the database fails; it may be removed.
pub async fn remove(hub: &Hub, caller: &UserCaller, room_id: Tsid, user_id: Tsid, ban: Option<bool>) -> Result<()> {
    if user_id == caller.user_id() {
        return leave(hub, caller, room_id).await;
    }
    let found = access::as_member(hub, caller, room_id).await?;
    if ban == Some(false) && is_banned(hub, &found.room, user_id).await? {
        return lift_ban(hub, caller, &found, user_id).await;
    }
    let member = one(hub, &found.room, user_id).await?;
    if member.role == MemberRole::Owner && found.room.kind == RoomKind::Group {
        return Err(room_refused(409, "owner_stays", "an owner is not removed; it hands over or leaves by itself"));
    }
    access::check(caller, &found, Deed::Remove(member.role))?;
    let mut tx = hub.store.begin().await?;
    let ban = ban == Some(true);
    let how = if ban { Leaving::Banned } else { Leaving::Removed };
    let taken = take_out(hub, &mut tx, caller.user_id(), &found.room, user_id, how).await?;
    let action = if ban { "member.ban" } else { "member.remove" };
    audit(hub, &mut tx, caller, &entry(caller, room_id, action, user_id)).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok(())
}

async fn is_banned(hub: &Hub, room: &Room, user_id: Tsid) -> Result<bool> {
    let known = store::member::get(hub.store.api(), room.shard, room.room_id, &[user_id]).await?;
    Ok(known.first().is_some_and(|member| member.banned_at.is_some()))
}

/// Lets a user that was removed for good enter again, and be invited.
async fn lift_ban(hub: &Hub, caller: &UserCaller, found: &InRoom, user_id: Tsid) -> Result<()> {
    access::check(caller, found, Deed::Remove(MemberRole::Member))?;
    let (room, mut tx) = (&found.room, hub.store.begin().await?);
    if store::member::lift_ban(&mut *tx, room.shard, room.room_id, user_id).await? {
        audit(hub, &mut tx, caller, &entry(caller, room.room_id, "member.lift_ban", user_id)).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// How a member leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Left,
    Removed,
    Banned,
}

/// Takes a member out of a group.
async fn take_out(hub: &Hub, tx: &mut Conn, actor: Tsid, room: &Room, user_id: Tsid, how: Leaving) -> Result<Taken> {
    let (shard, room_id, now) = (room.shard, room.room_id, hub.clock.now());
    let place = (shard, room_id);
    let mut taken = Taken::default();
    store::room::lock(tx, shard, room_id).await?;
    let known = store::member::get(&mut *tx, shard, room_id, &[user_id]).await?;
    if !known.first().is_some_and(Member::is_in) {
        return Err(Error::NotFound);
    }
    let kind = if how == Leaving::Left { RoomEventKind::MemberLeft } else { RoomEventKind::MemberRemoved };
    let seq = taken.room_event(hub, tx, place, kind, actor, Some(user_id.0)).await?;
    store::member::leave(&mut *tx, shard, room_id, user_id, now, seq, how == Leaving::Banned).await?;
    let left = store::room::add_members(&mut *tx, shard, room_id, -1).await?;
    if left == Some(0) {
        store::room::close(&mut *tx, shard, room_id, now).await?;
        taken.room_event(hub, tx, place, RoomEventKind::RoomClosed, actor, None).await?;
    } else if let Some(heir) = store::member::successor(&mut *tx, shard, room_id).await? {
        store::member::set_role(&mut *tx, shard, room_id, heir, MemberRole::Owner).await?;
        taken.room_event(hub, tx, place, RoomEventKind::MemberChanged, actor, Some(heir.0)).await?;
    }
    taken.user_events(hub, tx, place, &[user_id], StoredEvent::RoomLeft).await?;
    Ok(taken)
}

/// Takes a user out of all its groups, because it is erased or has withdrawn, and closes its rooms of two. Its messages
/// stay.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the next call goes on.
pub async fn leave_all(hub: &Hub, user: (i16, Tsid), partner_id: Tsid) -> Result<()> {
    for room_id in store::room::ids_of_user(hub.store.api(), user).await? {
        let found = store::room::get(hub.store.api(), user.0, partner_id, room_id, user.1).await?;
        let Some(RoomOfUser { room, .. }) = found else { continue };
        let mut tx = hub.store.begin().await?;
        if room.kind == RoomKind::Individual {
            // The other keeps what was written; the two remain its members, so that it stays their one room.
            if room.closed_at.is_none() {
                store::room::lock(&mut tx, user.0, room_id).await?;
                store::room::close(&mut *tx, user.0, room_id, hub.clock.now()).await?;
                let mut taken = Taken::default();
                taken.room_event(hub, &mut tx, (user.0, room_id), RoomEventKind::RoomClosed, user.1, None).await?;
                tx.commit().await?;
                taken.note(hub);
            }
            continue;
        }
        match take_out(hub, &mut tx, user.1, &room, user.1, Leaving::Left).await {
            // It has left meanwhile.
            Err(Error::NotFound) => continue,
            taken => {
                let taken = taken?;
                tx.commit().await?;
                taken.note(hub);
            }
        }
    }
    Ok(())
}

/// A change to a member. None leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct MemberChange {
    pub role: Option<MemberRole>,
    pub silenced_until: Option<Option<DateTime<Utc>>>,
}

/// Gives a member a role, or silences it. OWNER hands over: the caller becomes an admin.
///
/// # Errors
/// As `access::permitted`; `Error::NotFound` if there is no such member; `owner_stays` for the owner's own role.
/// `Error::Unavailable` if the database fails; it may be changed.
pub async fn change(hub: &Hub, caller: &UserCaller, room_id: Tsid, user_id: Tsid, change: MemberChange) -> Result<()> {
    let found = access::as_member(hub, caller, room_id).await?;
    if change.role.is_some() {
        access::check(caller, &found, Deed::SetRole)?;
    }
    if change.silenced_until.is_some() {
        access::check(caller, &found, Deed::Silence)?;
    }
    let member = one(hub, &found.room, user_id).await?;
    if member.role == MemberRole::Owner && change.role.is_some_and(|role| role != MemberRole::Owner) {
        return Err(room_refused(409, "owner_stays", "an owner hands over: give another member the role OWNER"));
    }
    if member.role <= found.member.role && user_id != caller.user_id() && change.silenced_until.is_some() {
        access::check(caller, &found, Deed::SetRole)?;
    }
    let place = (found.room.shard, room_id);
    let mut tx = hub.store.begin().await?;
    store::room::lock(&mut tx, place.0, room_id).await?;
    let mut taken = Taken::default();
    if let Some(role) = change.role {
        store::member::set_role(&mut *tx, place.0, room_id, user_id, role).await?;
        if role == MemberRole::Owner && found.member.role == MemberRole::Owner && user_id != caller.user_id() {
            store::member::set_role(&mut *tx, place.0, room_id, caller.user_id(), MemberRole::Admin).await?;
            let (kind, about) = (RoomEventKind::MemberChanged, Some(caller.user_id().0));
            taken.room_event(hub, &mut tx, place, kind, caller.user_id(), about).await?;
        }
        audit(hub, &mut tx, caller, &entry(caller, room_id, "member.role", user_id)).await?;
    }
    if let Some(until) = change.silenced_until {
        store::member::silence(&mut *tx, place.0, room_id, user_id, until).await?;
        audit(hub, &mut tx, caller, &entry(caller, room_id, "member.silence", user_id)).await?;
    }
    let kind = RoomEventKind::MemberChanged;
    taken.room_event(hub, &mut tx, place, kind, caller.user_id(), Some(user_id.0)).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok(())
}

/// Sets what the caller wants to be notified of in a room.
///
/// # Errors
/// As `access::as_member`. `Error::Unavailable` if the database fails; it may be set.
pub async fn set_notify(
    hub: &Hub,
    caller: &UserCaller,
    room_id: Tsid,
    notify: Option<Notify>,
    muted_until: Option<Option<DateTime<Utc>>>,
) -> Result<()> {
    let InRoom { room, member } = access::as_member(hub, caller, room_id).await?;
    let (notify, until) = (notify.unwrap_or(member.notify), muted_until.unwrap_or(member.muted_until));
    store::member::set_notify(hub.store.api(), room.shard, room_id, caller.user_id(), notify, until).await
}

async fn one(hub: &Hub, room: &Room, user_id: Tsid) -> Result<Member> {
    let found = store::member::get(hub.store.api(), room.shard, room.room_id, &[user_id]).await?;
    found.into_iter().find(Member::is_in).ok_or(Error::NotFound)
}

fn entry(caller: &UserCaller, room_id: Tsid, action: &str, user_id: Tsid) -> AuditEntry {
    AuditEntry {
        action: action.into(),
        partner_id: Some(caller.partner_id()),
        object: Some(room_object(room_id)),
        after: Some(json!({"userId": user_id.to_string()})),
        ..AuditEntry::default()
    }
}

fn banned() -> Error {
    room_refused(403, "banned", "the user was removed from this room for good")
}

fn full(room: &Room) -> Error {
    room_refused(409, "room_full", format!("the room has {} members, and no more", room.head.most_members))
}
