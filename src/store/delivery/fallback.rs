//! Fallbacks: deliveries over another channel that replace earlier ones of the same message.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::queue::UnsettledDelivery;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::model::watermark::ShardLane;
use crate::store::keys::{KeyColumns, key};
use crate::store::{Conn, Db, parse_word};

/// A locked delivery that a fallback may replace.
#[derive(Debug, Clone)]
pub struct ReplaceableDelivery {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    /// Index of its content in the message.
    pub content: i16,
    pub partner_id: Tsid,
    /// The provider that had it last.
    pub provider: Option<String>,
    /// Normalised, as the provider gets it.
    pub recipient: String,
    /// The recipient as the partner wrote it, if that differs.
    pub recipient_as_given: Option<String>,
}

/// Locks, in the order of their keys, those of these deliveries that a fallback may replace: they have an unused
/// fallback, and no cancellation was requested. The locks last until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored status that this program does not know.
pub async fn lock_replaceable(conn: &mut Conn, keys: &[DeliveryKey]) -> Result<Vec<ReplaceableDelivery>> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/lock_replaceable.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        keys.low,
        keys.high
    );
    let origin = rows.fetch_all(conn).await?.into_iter().map(|r| {
        Ok(ReplaceableDelivery {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            status: parse_word(&r.status, "status")?,
            attempt: r.attempt,
            content: r.content,
            partner_id: Tsid(r.partner_id),
            provider: r.provider,
            recipient: r.recipient,
            recipient_as_given: r.written,
        })
    });
    origin.collect()
}

/// A fallback delivery to insert.
#[derive(Debug, Clone)]
pub struct NewFallback {
    /// The delivery that it replaces.
    pub origin: ReplaceableDelivery,
    /// Its own number in the message.
    pub no: i16,
    pub lane: Lane,
    pub content: i16,
    pub max_attempts: i16,
    pub recipient: String,
    pub recipient_as_given: Option<String>,
    /// It has a fallback itself.
    pub has_fallback: bool,
    /// Reason of the replacement, for the event.
    pub reason: &'static str,
}

/// Inserts fallback deliveries, PENDING from `now` on, that replace deliveries locked by `lock_replaceable`, each with
/// the event 'delivery.fallback' of the replaced one. Returns that event's number by the key of the replaced delivery;
/// deliveries whose fallback was already used are left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert_fallbacks(
    db: impl Db<'_>,
    all: &[NewFallback],
    now: DateTime<Utc>,
) -> Result<HashMap<DeliveryKey, i16>> {
    let Some(keys) = KeyColumns::of(all.iter().map(|s| s.origin.key)) else { return Ok(HashMap::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/insert_fallbacks.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|s| s.no).collect::<Vec<_>>(),
        &all.iter().map(|s| s.lane.0).collect::<Vec<_>>(),
        &all.iter().map(|s| s.content).collect::<Vec<_>>(),
        &all.iter().map(|s| s.max_attempts).collect::<Vec<_>>(),
        &all.iter().map(|s| s.recipient.clone()).collect::<Vec<_>>(),
        &all.iter().map(|s| s.recipient_as_given.clone()).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|s| s.has_fallback).collect::<Vec<_>>(),
        &all.iter().map(|s| s.reason.to_owned()).collect::<Vec<_>>(),
        now,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (key(r.shard, r.message_id, r.no), r.event_seq)).collect())
}

/// A row's position in the order of a lane: (`ready_at`, message id, delivery number).
pub type LanePosition = (DateTime<Utc>, Tsid, i16);

/// Locks PENDING deliveries that have an unused fallback, were certainly not sent, and are not canceled: of each place
/// up to `rows` after the given position, in the order of (`ready_at`, key). Rows locked by others are skipped. Returns
/// each with its `ready_at`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_pending_with_fallback(
    conn: &mut Conn,
    places: &[(ShardLane, LanePosition)],
    rows: i64,
) -> Result<Vec<(UnsettledDelivery, DateTime<Utc>)>> {
    let found = sqlx::query_file!(
        "sql/delivery/lock_pending_with_fallback.sql",
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
        (UnsettledDelivery { key, lane: Lane(r.lane), head }, r.ready_at)
    });
    Ok(waiting.collect())
}
