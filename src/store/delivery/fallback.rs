//! Fallbacks: deliveries whose place another one takes, over another channel.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::queue::Waiting;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::model::watermark::ShardLane;
use crate::store::keys::{Keys, key};
use crate::store::{Conn, Db, word};

/// A delivery whose place may be taken; its row is held.
#[derive(Debug, Clone)]
pub struct Origin {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    pub content: i16,
    pub partner_id: Tsid,
    pub provider: Option<String>,
    pub recipient: String,
    pub written: Option<String>,
}

/// Locks those of these deliveries whose place may be taken: they have an unused fallback, and no one asked to cancel
/// them. In the order of their keys, until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds one for longer than the lock
/// time-out. `Error::Internal` for a status that this program does not know.
pub async fn origins(conn: &mut Conn, keys: &[DeliveryKey]) -> Result<Vec<Origin>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let rows =
        sqlx::query_file!("sql/delivery/origins.sql", &keys.shards, &keys.message_ids, &keys.nos, keys.low, keys.high);
    let origin = rows.fetch_all(conn).await?.into_iter().map(|r| {
        Ok(Origin {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            status: word(&r.status, "status")?,
            attempt: r.attempt,
            content: r.content,
            partner_id: Tsid(r.partner_id),
            provider: r.provider,
            recipient: r.recipient,
            written: r.written,
        })
    });
    origin.collect()
}

/// What takes a delivery's place.
#[derive(Debug, Clone)]
pub struct StandIn {
    pub origin: Origin,
    pub no: i16,
    pub lane: Lane,
    pub content: i16,
    pub max_attempts: i16,
    pub recipient: String,
    pub written: Option<String>,
    pub has_fallback: bool,
    pub why: &'static str,
}

/// Writes deliveries that take the place of others, which `origins` locked, each with its event. Returns the number of
/// that event by the key of the delivery that was replaced. One whose fallback was used before is left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn fall_back(db: impl Db<'_>, all: &[StandIn], now: DateTime<Utc>) -> Result<HashMap<DeliveryKey, i16>> {
    let Some(keys) = Keys::of(all.iter().map(|s| s.origin.key)) else { return Ok(HashMap::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/fall_back.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|s| s.no).collect::<Vec<_>>(),
        &all.iter().map(|s| s.lane.0).collect::<Vec<_>>(),
        &all.iter().map(|s| s.content).collect::<Vec<_>>(),
        &all.iter().map(|s| s.max_attempts).collect::<Vec<_>>(),
        &all.iter().map(|s| s.recipient.clone()).collect::<Vec<_>>(),
        &all.iter().map(|s| s.written.clone()).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|s| s.has_fallback).collect::<Vec<_>>(),
        &all.iter().map(|s| s.why.to_owned()).collect::<Vec<_>>(),
        now,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (key(r.shard, r.message_id, r.no), r.event_seq)).collect())
}

/// A row of a place, as its list is ordered: `ready_at`, message, number.
pub type ReadUpTo = (DateTime<Utc>, Tsid, i16);

/// Locks PENDING deliveries of these places though another channel stands by, each place from behind a row on, in the
/// order of (`ready_at`, key); at most `rows` of each place. Returns each with its `ready_at`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing is locked then.
pub async fn standing_by(
    conn: &mut Conn,
    places: &[(ShardLane, ReadUpTo)],
    rows: i64,
) -> Result<Vec<(Waiting, DateTime<Utc>)>> {
    let found = sqlx::query_file!(
        "sql/delivery/standing_by.sql",
        &places.iter().map(|(place, _)| place.0).collect::<Vec<_>>(),
        &places.iter().map(|(place, _)| place.1.0).collect::<Vec<_>>(),
        &places.iter().map(|(_, behind)| behind.0).collect::<Vec<_>>(),
        &places.iter().map(|(_, behind)| behind.1.0).collect::<Vec<_>>(),
        &places.iter().map(|(_, behind)| behind.2).collect::<Vec<_>>(),
        rows
    );
    let waiting = found.fetch_all(conn).await?.into_iter().map(|r| {
        let head = head!(r, Status::Pending, r.cancel_requested);
        let key = key(r.shard, r.message_id, r.no);
        (Waiting { key, lane: Lane(r.lane), head }, r.ready_at)
    });
    Ok(waiting.collect())
}
