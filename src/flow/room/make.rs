//! Make: a room of two, of which a pair has one, or a group.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::room::{MEMBERS_DEFAULT, MemberRole, Room, RoomHead, RoomKind, RoomSettings, Visibility, pair_key};
use crate::model::stream::{RoomEventKind, StoredEvent};
use crate::store::{self, user, user_block};

use super::access::room_refused;
use super::event::Taken;

/// A room to make.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRoom {
    pub kind: RoomKind,
    pub title: Option<String>,
    /// Without the caller, who is in it anyway.
    pub participants: Vec<Tsid>,
    pub visibility: Visibility,
    pub most_members: Option<i32>,
    pub settings: RoomSettings,
    pub metadata: Map<String, Value>,
    /// Seal its texts; a partner with encrypted content has all of them sealed.
    pub encrypted: bool,
}

/// Makes a room with the caller as its owner, or finds the one of two users. Returns its id, and whether it is new.
///
/// # Errors
/// `user_unknown` for a participant that the partner does not have; `blocked` if the caller and a participant have
/// blocked each other; `room_full`; `rate_limited`. `Error::Unavailable` if the database fails; the room may be made.
pub async fn make(hub: &Hub, caller: &UserCaller, new: NewRoom) -> Result<(Tsid, bool)> {
    let mut others: Vec<Tsid> = new.participants.iter().copied().filter(|id| *id != caller.user_id()).collect();
    others.sort_unstable();
    others.dedup();
    let pair = match (new.kind, others.as_slice()) {
        (RoomKind::Individual, [other]) => Some(pair_key(caller.user_id(), *other)),
        (RoomKind::Individual, _) => {
            let detail = "name one other user in participantIds of a room of two";
            return Err(room_refused(422, "participants_invalid", detail));
        }
        (RoomKind::Group, _) => None,
    };
    check_users(hub, caller, &others).await?;
    let (shard, partner_id) = (caller.shard(), caller.partner_id());
    if let Some(key) = &pair
        && let Some(room_id) = store::room::find_pair(hub.store.api(), shard, partner_id, key).await?
    {
        return Ok((room_id, false));
    }
    if !hub.room_makers().take(caller.user_id().0, hub.clock.now()) {
        let detail = format!("a user may make {} rooms an hour", limits::ROOMS_MADE);
        return Err(Error::Limited { reason: "rate_limited", detail, retry_after_s: 120 });
    }
    let most = if pair.is_some() { 2 } else { new.most_members.unwrap_or(MEMBERS_DEFAULT) };
    let count = i32::try_from(others.len() + 1).unwrap_or(i32::MAX);
    if count > most {
        return Err(room_refused(
            409,
            "room_full",
            format!("the room has {count} participants, and maxParticipants is {most}"),
        ));
    }
    let (now, room_id) = (hub.clock.now(), hub.next_id());
    let room = Room {
        shard,
        room_id,
        partner_id,
        kind: new.kind,
        visibility: if pair.is_some() { Visibility::Private } else { new.visibility },
        title: new.title,
        settings: new.settings,
        metadata: new.metadata,
        retention_days: None,
        encrypted: new.encrypted || caller.partner.encrypt_content,
        created_by: caller.user_id(),
        created_at: now,
        updated_at: now,
        closed_at: None,
        head: RoomHead { seq: 0, no: 0, last_seq: 0, last_id: room_id, members: 0, most_members: most },
    };
    let own_role = if pair.is_some() { MemberRole::Member } else { MemberRole::Owner };
    let members: Vec<(Tsid, MemberRole)> = [(caller.user_id(), own_role)]
        .into_iter()
        .chain(others.iter().map(|other| (*other, MemberRole::Member)))
        .collect();
    let mut tx = hub.store.begin().await?;
    if !store::room::insert(&mut *tx, &room, pair.as_deref()).await? {
        tx.rollback().await?;
        // Another request has made the room of the pair at the same moment.
        let key = pair.as_deref().unwrap_or_default();
        let found = store::room::find_pair(hub.store.api(), shard, partner_id, key).await?;
        return found.map(|room_id| (room_id, false)).ok_or(Error::NotFound);
    }
    let mut taken = Taken::default();
    store::member::insert(&mut *tx, shard, room_id, &members, 0, now).await?;
    store::room::add_members(&mut *tx, shard, room_id, count).await?;
    let place = (shard, room_id);
    taken.room_event(hub, &mut tx, place, RoomEventKind::RoomCreated, caller.user_id(), None).await?;
    let users: Vec<Tsid> = members.iter().map(|(user_id, _)| *user_id).collect();
    taken.user_events(hub, &mut tx, place, &users, StoredEvent::RoomEntered).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok((room_id, true))
}

/// Checks that these are users of the caller's partner that take part in rooms with the caller.
///
/// # Errors
/// `user_unknown`; `blocked`. `Error::Unavailable` if the database fails.
pub async fn check_users(hub: &Hub, caller: &UserCaller, others: &[Tsid]) -> Result<()> {
    let (db, shard) = (hub.store.api(), caller.shard());
    let known = user::existing(db, shard, caller.partner_id(), others).await?;
    if let Some(unknown) = others.iter().find(|id| !known.contains(id)) {
        return Err(room_refused(
            422,
            "user_unknown",
            format!("there is no user {unknown}; name users by their userId"),
        ));
    }
    match user_block::between(db, shard, caller.user_id(), others).await? {
        None => Ok(()),
        Some((by, _)) if by == caller.user_id() => {
            Err(room_refused(403, "blocked", "you have blocked one of these users; unblock it first"))
        }
        Some(_) => Err(room_refused(403, "blocked", "one of these users takes no messages from you")),
    }
}
