//! The queue: claims, leases, promotion of scheduled deliveries, and cancellation.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::settle::Settle;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryFacts, DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::store::keys::{KeyColumns, key};
use crate::store::{Conn, Db, parse_word};

/// How much to claim from one lane of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRequest {
    pub shard: i16,
    pub lane: Lane,
    /// Deliveries with an earlier `ready_at` are not looked at (see `model::watermark`).
    pub watermark: DateTime<Utc>,
    /// Deliveries at most.
    pub limit: i64,
    /// The worker records the beginning of each call before the call (see `attempt::record_begin`).
    pub begins_recorded: bool,
}

/// A delivery that this worker holds.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    pub key: DeliveryKey,
    pub lane: Lane,
    /// As it is after the claim: PROCESSING, with the new attempt.
    pub head: DeliveryFacts,
    /// Index of its content in the message.
    pub content: i16,
    pub ready_at: DateTime<Utc>,
    pub recipient: String,
    /// The provider that had it last.
    pub provider: Option<String>,
}

/// Claims up to `most` PENDING deliveries of these lanes for `worker`, the oldest of each lane first. Increments
/// `attempt` (the fencing token) and sets a lease by the database's clock. Rows locked by other workers are skipped, so
/// fewer than `most` may return although more wait.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing was claimed, or the lease of what was claimed runs
/// out.
pub async fn claim(
    db: impl Db<'_>,
    asks: &[ClaimRequest],
    most: i64,
    worker: Tsid,
    lease: Duration,
) -> Result<Vec<ClaimedDelivery>> {
    let rows = sqlx::query_file!(
        "sql/delivery/claim.sql",
        &asks.iter().map(|a| a.shard).collect::<Vec<_>>(),
        &asks.iter().map(|a| a.lane.0).collect::<Vec<_>>(),
        &asks.iter().map(|a| a.watermark).collect::<Vec<_>>(),
        &asks.iter().map(|a| a.limit).collect::<Vec<_>>(),
        most,
        worker.0,
        lease.as_secs_f64(),
        &asks.iter().map(|a| a.begins_recorded).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| ClaimedDelivery {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            head: head!(r, Status::Processing, r.cancel_requested),
            content: r.content,
            ready_at: r.ready_at,
            recipient: r.recipient,
            provider: r.provider,
        })
        .collect())
}

/// Extends the lease of an attempt of `worker`: it ends `lease` from now on, by the database's clock. False if the
/// worker has lost the delivery.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the lease may end as it was.
pub async fn extend_lease(
    db: impl Db<'_>,
    key: DeliveryKey,
    attempt: i16,
    worker: Tsid,
    lease: Duration,
) -> Result<bool> {
    let status = Status::Processing.as_str();
    let DeliveryKey { shard, message_id, no } = key;
    let done = sqlx::query_file!(
        "sql/delivery/extend_lease.sql",
        shard,
        message_id.0,
        no,
        attempt,
        worker.0,
        status,
        lease.as_secs_f64()
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Locks these deliveries in the order of their keys, so that two batches cannot deadlock. The locks last until the
/// transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock(conn: &mut Conn, keys: &[DeliveryKey]) -> Result<()> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(()) };
    sqlx::query_file!("sql/delivery/lock.sql", &keys.shards, &keys.message_ids, &keys.nos).fetch_all(conn).await?;
    Ok(())
}

/// A PROCESSING delivery whose lease has ended; its row is locked.
pub struct ExpiredLease {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub head: DeliveryFacts,
    /// The worker that held it.
    pub worker: Tsid,
    pub lease_until: DateTime<Utc>,
    /// The beginning of its call was recorded: the attempt has an IN_FLIGHT row.
    pub has_in_flight_row: bool,
    /// Its worker records the beginning of calls: only then does a missing row prove that no call began.
    pub begins_recorded: bool,
    /// The provider that was called, if recorded.
    pub provider: Option<String>,
    /// Workers lost earlier while they held it.
    pub lost_workers: i16,
}

/// Locks up to `rows` PROCESSING deliveries of these shards whose lease has ended by the database's clock. Leases that
/// ended before `mark` are not looked at. Rows locked by others are skipped. The caller settles them in the same
/// transaction.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_expired_leases(
    conn: &mut Conn,
    shards: &[i16],
    mark: DateTime<Utc>,
    rows: i64,
) -> Result<Vec<ExpiredLease>> {
    let found = sqlx::query_file!("sql/delivery/lock_expired_leases.sql", shards, mark, rows).fetch_all(conn).await?;
    Ok(found
        .into_iter()
        .map(|r| ExpiredLease {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            head: head!(r, Status::Processing, r.cancel_requested),
            worker: Tsid(r.worker),
            lease_until: r.lease_until,
            has_in_flight_row: r.has_in_flight_row,
            begins_recorded: r.begins_recorded,
            provider: r.provider,
            lost_workers: r.deaths,
        })
        .collect())
}

/// Makes up to `rows` SCHEDULED deliveries that are due by `now` PENDING, ready from `now` on. A `ready_at` before
/// `mark` is not looked at. Returns shard and lane of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn promote(
    db: impl Db<'_>,
    shards: &[i16],
    mark: DateTime<Utc>,
    now: DateTime<Utc>,
    rows: i64,
) -> Result<Vec<(i16, Lane)>> {
    let rows = sqlx::query_file!("sql/delivery/promote.sql", shards, mark, now, rows).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (r.shard, Lane(r.lane))).collect())
}

/// A delivery that is not settled, with what decides its next step.
#[derive(Debug, Clone)]
pub struct UnsettledDelivery {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub head: DeliveryFacts,
}

impl UnsettledDelivery {
    /// The delivery as it is after a step that leaves it unsettled.
    pub fn after_step(settle: &Settle) -> UnsettledDelivery {
        let Settle { key, lane, head, step, .. } = settle;
        let max_attempts = head.max_attempts + i16::from(step.refund);
        let (status, possibly_sent) = (step.status, head.possibly_sent || step.possibly_sent);
        UnsettledDelivery {
            key: *key,
            lane: *lane,
            head: DeliveryFacts { status, max_attempts, possibly_sent, ..*head },
        }
    }
}

/// Position in the claim index: (shard, lane, `ready_at`).
pub type SweepPosition = (i16, i16, DateTime<Utc>);

/// A slice of a sweep over PENDING deliveries.
pub struct SweptSlice {
    /// Deliveries that expired while they waited.
    pub expired: Vec<UnsettledDelivery>,
    /// Where to continue; None at the end of the index.
    pub next: Option<SweepPosition>,
}

/// Reads the next `rows` PENDING deliveries after `from` and returns those that expired by `now`. Bounded by rows read,
/// not by rows found: call it again with `next`. Locks nothing.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn expired_pending(
    db: impl Db<'_>,
    from: SweepPosition,
    now: DateTime<Utc>,
    rows: i64,
) -> Result<SweptSlice> {
    let found =
        sqlx::query_file!("sql/delivery/expired_pending.sql", from.0, from.1, from.2, now, rows).fetch_all(db).await?;
    let full = found.last().is_some_and(|r| r.position >= rows);
    let next = found.last().filter(|_| full).map(|r| (r.shard, r.lane, r.ready_at));
    let expired = found.into_iter().filter(|r| r.expires_at.is_some_and(|at| at <= now));
    let expired = expired
        .map(|r| {
            let head = head!(r, Status::Pending, false);
            UnsettledDelivery { key: key(r.shard, r.message_id, r.no), lane: Lane(r.lane), head }
        })
        .collect();
    Ok(SweptSlice { expired, next })
}

/// Deliveries of a partner's message that are not settled, by number. Empty if the message is not the partner's. Locks
/// nothing: the fence of `settle` detects changes.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn unsettled(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
) -> Result<Vec<UnsettledDelivery>> {
    let rows = sqlx::query_file!("sql/delivery/unsettled.sql", partner_id.0, shard, message_id.0).fetch_all(db).await?;
    rows.into_iter()
        .map(|r| {
            let head = head!(r, parse_word(&r.status, "status")?, r.cancel_requested);
            let key = key(r.shard, r.message_id, r.no);
            Ok(UnsettledDelivery { key, lane: Lane(r.lane), head })
        })
        .collect()
}

/// Marks the PROCESSING deliveries of a partner's message as to be canceled: they end CANCELED if the provider does not
/// accept them now. Settled deliveries lose their unused fallback.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn request_cancel(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/delivery/request_cancel.sql", partner_id.0, shard, message_id.0).execute(db).await?;
    Ok(())
}
