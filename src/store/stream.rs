//! Streams: their tails, heads and epoch. Every statement takes streams as pairs: an ordered read under two arrays
//! would sort whole streams.

use serde_json::Value;

use super::Db;
use super::inbox::{ItemRow, UserSeq, user_columns};
use crate::error::Result;
use crate::id::Tsid;

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
            let (shard, user_id, detail) = (r.shard, Tsid(r.user_id), r.detail);
            let event = r.seq.zip(r.event).map(|(seq, event)| UserEvent { seq, event, detail, item });
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
