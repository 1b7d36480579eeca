//! Rooms and their heads.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::member::{maybe_member, member};
use super::{Conn, Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::room::{Member, Room, RoomHead, RoomKind, RoomSettings};

/// A room from a row with all columns of it and its head.
macro_rules! room {
    ($r:expr) => {{
        let r = &$r;
        Ok::<_, crate::error::Error>(Room {
            shard: r.shard,
            room_id: Tsid(r.room_id),
            partner_id: Tsid(r.partner_id),
            kind: parse_word(&r.kind, "room kind")?,
            visibility: parse_word(&r.visibility, "visibility")?,
            title: r.title.clone(),
            settings: RoomSettings::from_json(&r.settings),
            metadata: object(&r.metadata),
            retention_days: r.retention_days,
            encrypted: r.encrypted,
            created_by: Tsid(r.created_by),
            created_at: r.created_at,
            updated_at: r.updated_at,
            closed_at: r.closed_at,
            head: RoomHead {
                seq: r.seq,
                no: r.no,
                last_seq: r.last_seq,
                last_id: Tsid(r.last_id),
                members: r.members,
                most_members: r.most_members,
            },
        })
    }};
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// A room, and the row of a user in it, if there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomOfUser {
    pub room: Room,
    pub member: Option<Member>,
}

/// Makes a room with its head, without members. False: the pair has a room already.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, room: &Room, pair_key: Option<&str>) -> Result<bool> {
    let made = sqlx::query_file_scalar!(
        "sql/room/insert.sql",
        room.shard,
        room.room_id.0,
        room.partner_id.0,
        room.kind.as_str(),
        room.visibility.as_str(),
        room.title.as_deref(),
        room.settings.to_json(),
        Value::Object(room.metadata.clone()),
        pair_key,
        room.encrypted,
        room.created_by.0,
        room.created_at,
        room.head.most_members,
        room.settings.admins_write(),
        room.settings.slow_mode_s,
    );
    Ok(made.fetch_optional(db).await?.is_some())
}

/// A room of a partner, with the row of a user in it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn get(
    db: impl Db<'_>,
    shard: i16,
    partner_id: Tsid,
    room_id: Tsid,
    user_id: Tsid,
) -> Result<Option<RoomOfUser>> {
    let row = sqlx::query_file!("sql/room/get.sql", shard, partner_id.0, room_id.0, user_id.0);
    let found = row.fetch_optional(db).await?;
    found.map(|r| Ok(RoomOfUser { room: room!(r)?, member: maybe_member!(r, r.room_id)? })).transpose()
}

/// The room of two users of a partner.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn find_pair(db: impl Db<'_>, shard: i16, partner_id: Tsid, pair_key: &str) -> Result<Option<Tsid>> {
    let found = sqlx::query_file_scalar!("sql/room/find_pair.sql", shard, partner_id.0, pair_key);
    Ok(found.fetch_optional(db).await?.map(Tsid))
}

/// Rooms that a user is in, last active first. `below`: only rooms whose `RoomHead::last_id` is below it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn of_user(
    db: impl Db<'_>,
    user: (i16, Tsid),
    below: Tsid,
    kind: Option<RoomKind>,
    rows: i64,
) -> Result<Vec<RoomOfUser>> {
    let kind = kind.map(RoomKind::as_str);
    let found = sqlx::query_file!("sql/room/of_user.sql", user.0, user.1.0, below.0, kind, rows).fetch_all(db).await?;
    found.into_iter().map(|r| Ok(RoomOfUser { room: room!(r)?, member: Some(member!(r, r.room_id)?) })).collect()
}

/// Open public rooms of a partner, newest first, each with the row of a user in it. `below`: only rooms with a lower
/// id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn public(
    db: impl Db<'_>,
    shard: i16,
    partner_id: Tsid,
    user_id: Tsid,
    below: Tsid,
    rows: i64,
) -> Result<Vec<RoomOfUser>> {
    let found = sqlx::query_file!("sql/room/public.sql", shard, partner_id.0, user_id.0, below.0, rows);
    let found = found.fetch_all(db).await?;
    found.into_iter().map(|r| Ok(RoomOfUser { room: room!(r)?, member: maybe_member!(r, r.room_id)? })).collect()
}

/// All rooms that a user is in, also hidden ones.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn ids_of_user(db: impl Db<'_>, user: (i16, Tsid)) -> Result<Vec<Tsid>> {
    let found = sqlx::query_file_scalar!("sql/room/ids_of_user.sql", user.0, user.1.0).fetch_all(db).await?;
    Ok(found.into_iter().map(Tsid).collect())
}

/// A room that a user is in, as far as its unread messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadRoom {
    pub room_id: Tsid,
    pub unread: i64,
    /// The number of the room's last event, and that of its last message.
    pub seq: i64,
    pub last_seq: i64,
    /// The user sees messages whose number is above.
    pub from_no: i64,
}

/// Up to `rows` rooms that a user is in, last active first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn unread_of_user(db: impl Db<'_>, user: (i16, Tsid), rows: i64) -> Result<Vec<UnreadRoom>> {
    let found = sqlx::query_file!("sql/room/unread_of_user.sql", user.0, user.1.0, rows).fetch_all(db).await?;
    let room = found.into_iter().map(|r| UnreadRoom {
        room_id: Tsid(r.room_id),
        unread: r.unread,
        seq: r.seq,
        last_seq: r.last_seq,
        from_no: r.from_no,
    });
    Ok(room.collect())
}

/// Locks a room's gate until the transaction ends, and returns its head.
///
/// # Errors
/// `Error::NotFound` if there is no such room. `Error::Unavailable` if the database cannot be reached, or another
/// transaction holds the gate for longer than the lock time-out; the transaction is lost then.
pub async fn lock(tx: &mut Conn, shard: i16, room_id: Tsid) -> Result<RoomHead> {
    let row = sqlx::query_file!("sql/room/lock.sql", shard, room_id.0).fetch_optional(tx).await?;
    let r = row.ok_or(crate::error::Error::NotFound)?;
    Ok(RoomHead {
        seq: r.seq,
        no: r.no,
        last_seq: r.last_seq,
        last_id: Tsid(r.last_id),
        members: r.members,
        most_members: r.most_members,
    })
}

/// Counts members in, or out for a negative number. Returns how many there are; None if there is no room left.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn add_members(db: impl Db<'_>, shard: i16, room_id: Tsid, n: i32) -> Result<Option<i32>> {
    Ok(sqlx::query_file_scalar!("sql/room/add_members.sql", shard, room_id.0, n).fetch_optional(db).await?)
}

/// Writes what can be changed of a room. The caller holds the lock of its gate.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update(db: impl Db<'_>, room: &Room, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!(
        "sql/room/update.sql",
        room.shard,
        room.room_id.0,
        room.visibility.as_str(),
        room.title.as_deref(),
        room.settings.to_json(),
        Value::Object(room.metadata.clone()),
        room.retention_days,
        now,
        room.head.most_members,
        room.settings.admins_write(),
        room.settings.slow_mode_s,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Closes a room. The caller holds the lock of its gate.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn close(db: impl Db<'_>, shard: i16, room_id: Tsid, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/room/close.sql", shard, room_id.0, now).execute(db).await?;
    Ok(())
}

/// An event of a room that is no new message.
#[derive(Debug, Clone, Copy)]
pub struct NewRoomEvent<'e> {
    pub event_id: Tsid,
    pub event: &'e str,
    /// The message's number, or a user's id.
    pub about: Option<i64>,
    pub actor: Option<Tsid>,
}

/// Adds an event to a room's stream and returns its number. The caller holds the lock of its gate.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn add_event(db: impl Db<'_>, shard: i16, room_id: Tsid, event: &NewRoomEvent<'_>) -> Result<i64> {
    let actor = event.actor.map(|actor| actor.0);
    let seq = sqlx::query_file_scalar!(
        "sql/room/add_event.sql",
        shard,
        room_id.0,
        event.event_id.0,
        event.event,
        event.about,
        actor,
    );
    Ok(seq.fetch_one(db).await?)
}

/// A room whose messages are deleted after some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedRoom {
    pub shard: i16,
    pub room_id: Tsid,
    pub days: i16,
}

/// All rooms whose messages are deleted after some days.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn with_retention(db: impl Db<'_>) -> Result<Vec<RetainedRoom>> {
    let found = sqlx::query_file!("sql/room/with_retention.sql").fetch_all(db).await?;
    Ok(found.into_iter().map(|r| RetainedRoom { shard: r.shard, room_id: Tsid(r.room_id), days: r.days }).collect())
}

/// Up to `rows` rooms of a shard whose messages are sealed, with ids above `after`, in the order of their ids.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn sealed(db: impl Db<'_>, shard: i16, after: Tsid, rows: i64) -> Result<Vec<Tsid>> {
    let found = sqlx::query_file_scalar!("sql/room/sealed.sql", shard, after.0, rows).fetch_all(db).await?;
    Ok(found.into_iter().map(Tsid).collect())
}
