//! Streams: their tails, heads and epoch. Every statement takes streams as pairs: an ordered read under two arrays
//! would sort whole streams.

use serde_json::Value;

use super::Db;
use super::chat_message::ChatRow;
use super::inbox::{ItemRow, UserSeq, user_columns};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::stream::StoredEvent;

/// A row of a user's stream.
#[derive(Debug, Clone)]
pub struct UserEventRow {
    pub shard: i16,
    pub user_id: Tsid,
    /// The number of the stream's last event.
    pub head: i64,
    /// None: the stream has no event after the number asked for.
    pub event: Option<UserEvent>,
}

/// An event of a user's stream.
#[derive(Debug, Clone)]
pub struct UserEvent {
    pub seq: i64,
    /// The word of a stored event, or that of an arrival.
    pub event: String,
    pub detail: Option<Value>,
    /// The message or room that it is about.
    pub about: Option<Tsid>,
    /// The item that it is about, as it is now.
    pub item: Option<ItemRow>,
}

/// The event of an item's own row.
pub const ARRIVED: &str = "ITEM_ARRIVED";

/// Events of these users' streams after a number, at most `most` of each, in the order of users and numbers. A stream
/// without new events has one row.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn user_tails(db: impl Db<'_>, after: &[(i16, Tsid, i64)], most: i64) -> Result<Vec<UserEventRow>> {
    let (shards, ids) = user_columns(after.iter().map(|(shard, user_id, _)| (*shard, *user_id)));
    let seqs: Vec<i64> = after.iter().map(|(_, _, seq)| *seq).collect();
    let rows =
        sqlx::query_file!("sql/stream/user_tails.sql", &shards, &ids, &seqs, most, ARRIVED).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            let item = r.message_id.zip(r.no).and_then(|(message_id, no)| {
                Some(ItemRow {
                    message_id: Tsid(message_id),
                    no,
                    content: r.content?,
                    seq: r.item_seq?,
                    arrived_at: r.arrived_at?,
                    read_at: r.read_at,
                    archived_at: r.archived_at,
                    snoozed_until: r.snoozed_until,
                    expires_at: r.expires_at,
                    is_seen: r.is_seen.unwrap_or(false),
                })
            });
            let (shard, user_id, detail, about) = (r.shard, Tsid(r.user_id), r.detail, r.about.map(Tsid));
            let event = r.seq.zip(r.event).map(|(seq, event)| UserEvent { seq, event, detail, about, item });
            UserEventRow { shard, user_id, head: r.head, event }
        })
        .collect())
}

/// The numbers that these users' streams have reached. A user without a stream is left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn user_heads(db: impl Db<'_>, users: &[(i16, Tsid)]) -> Result<Vec<UserSeq>> {
    let (shards, ids) = user_columns(users.iter().copied());
    let rows = sqlx::query_file!("sql/stream/user_heads.sql", &shards, &ids).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| UserSeq { shard: r.shard, user_id: Tsid(r.user_id), seq: r.seq }).collect())
}

/// What distinguishes this history of the database from others: the cluster's number, and the timeline.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn history(db: impl Db<'_>) -> Result<(i64, String)> {
    let row = sqlx::query_file!("sql/stream/epoch.sql").fetch_one(db).await?;
    Ok((row.system_identifier, row.timeline))
}

/// A row of a room's stream.
#[derive(Debug, Clone)]
pub struct RoomEventRow {
    pub shard: i16,
    pub room_id: Tsid,
    /// The number of the stream's last event.
    pub head: i64,
    /// None: the stream has no event after the number asked for.
    pub event: Option<RoomEventStored>,
}

/// An event of a room's stream.
#[derive(Debug, Clone)]
pub struct RoomEventStored {
    pub seq: i64,
    /// The word of a stored event, or `CREATED`.
    pub event: String,
    /// Its time.
    pub event_id: Tsid,
    pub about: Option<i64>,
    pub actor: Option<Tsid>,
    pub detail: Option<Value>,
    /// The message that it is about, as it is now.
    pub message: Option<ChatRow>,
}

/// The event of a message's own row.
pub const CREATED: &str = "MESSAGE_CREATED";

/// Events of these rooms' streams after a number, at most `most` of each, in the order of rooms and numbers. A stream
/// without new events has one row.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn room_tails(db: impl Db<'_>, after: &[(i16, Tsid, i64)], most: i64) -> Result<Vec<RoomEventRow>> {
    let (shards, ids) = user_columns(after.iter().map(|(shard, room_id, _)| (*shard, *room_id)));
    let seqs: Vec<i64> = after.iter().map(|(_, _, seq)| *seq).collect();
    let rows =
        sqlx::query_file!("sql/stream/room_tails.sql", &shards, &ids, &seqs, most, CREATED).fetch_all(db).await?;
    let row = rows.into_iter().map(|r| {
        let (shard, room_id) = (r.stream_shard, Tsid(r.stream_id));
        let message = r.seq.zip(r.content).and_then(|(seq, content)| {
            Some(ChatRow {
                shard,
                room_id,
                seq,
                no: r.no?,
                chat_id: Tsid(r.chat_id?),
                sender_id: Tsid(r.sender_id?),
                temp_id: r.temp_id,
                kind: r.kind?,
                content,
                version: r.version?,
                edited_at: r.edited_at,
                deleted_at: r.deleted_at,
            })
        });
        let (about, actor, detail) = (r.about, r.actor.map(Tsid), r.detail);
        let event = r.event_seq.zip(r.event).zip(r.event_id);
        let event = event.map(|((seq, event), event_id)| RoomEventStored {
            seq,
            event,
            event_id: Tsid(event_id),
            about,
            actor,
            detail,
            message,
        });
        RoomEventRow { shard, room_id, head: r.head, event }
    });
    Ok(row.collect())
}

/// The numbers that these rooms' streams have reached: (shard, room, number).
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn room_heads(db: impl Db<'_>, rooms: &[(i16, Tsid)]) -> Result<Vec<(i16, Tsid, i64)>> {
    let (shards, ids) = user_columns(rooms.iter().copied());
    let rows = sqlx::query_file!("sql/stream/room_heads.sql", &shards, &ids).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (r.shard, Tsid(r.room_id), r.seq)).collect())
}

/// Adds the same event, about a room, to users' streams of a shard. Returns the new numbers.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a head for longer than the lock
/// time-out; outside a transaction, the statement may have committed.
pub async fn add_user_events(
    db: impl Db<'_>,
    shard: i16,
    users: &[Tsid],
    event_id: Tsid,
    event: StoredEvent,
    about: Tsid,
) -> Result<Vec<UserSeq>> {
    let ids: Vec<i64> = users.iter().map(|user_id| user_id.0).collect();
    let event = event.as_str();
    let rows = sqlx::query_file!("sql/stream/add_user_events.sql", shard, &ids, event_id.0, event, about.0);
    let rows = rows.fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| UserSeq { shard, user_id: Tsid(r.stream_id), seq: r.seq }).collect())
}
