//! The queue: what may be claimed, what is held under a lease, and what waits for its time.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::settle::Settle;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryFacts, DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::store::keys::{Keys, key};
use crate::store::{Conn, Db, word};

/// How much to claim from one lane, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub shard: i16,
    pub lane: Lane,
    pub mark: DateTime<Utc>,
    pub take: i64,
    /// The beginning of a call is recorded before the call.
    pub begins_recorded: bool,
}

#[derive(Debug, Clone)]
pub struct Claimed {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub head: DeliveryFacts,
    pub content: i16,
    pub ready_at: DateTime<Utc>,
    pub recipient: String,
    /// Who had it last.
    pub provider: Option<String>,
}

/// Claims up to `most` PENDING deliveries of these lanes for `worker`, the oldest of each lane first. Spends an attempt
/// of each, whose number is the fencing token, and sets a lease by the database's clock. Rows locked by other workers
/// are skipped, so fewer than `most` may return although more wait.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing was claimed, or the lease of what was claimed runs
/// out.
pub async fn claim(db: impl Db<'_>, asks: &[Ask], most: i64, worker: Tsid, lease: Duration) -> Result<Vec<Claimed>> {
    let rows = sqlx::query_file!(
        "sql/delivery/claim.sql",
        &asks.iter().map(|a| a.shard).collect::<Vec<_>>(),
        &asks.iter().map(|a| a.lane.0).collect::<Vec<_>>(),
        &asks.iter().map(|a| a.mark).collect::<Vec<_>>(),
        &asks.iter().map(|a| a.take).collect::<Vec<_>>(),
        most,
        worker.0,
        lease.as_secs_f64(),
        &asks.iter().map(|a| a.begins_recorded).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Claimed {
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
/// worker has lost it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached: the lease may end.
pub async fn extend(db: impl Db<'_>, key: DeliveryKey, attempt: i16, worker: Tsid, lease: Duration) -> Result<bool> {
    let status = Status::Processing.as_str();
    let DeliveryKey { shard, message_id, no } = key;
    let done = sqlx::query_file!(
        "sql/delivery/extend.sql",
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

/// Locks these deliveries until the transaction ends, one after the other in the order of their keys: two transactions
/// then never wait for each other in a ring.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds one for longer than the lock
/// time-out.
pub async fn lock(conn: &mut Conn, keys: &[DeliveryKey]) -> Result<()> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(()) };
    sqlx::query_file!("sql/delivery/lock.sql", &keys.shards, &keys.message_ids, &keys.nos).fetch_all(conn).await?;
    Ok(())
}

/// A delivery whose worker was lost.
pub struct Overdue {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub head: DeliveryFacts,
    pub worker: Tsid,
    pub lease_until: DateTime<Utc>,
    /// The beginning of its call is on record.
    pub begun: bool,
    /// Whoever claimed it records beginnings: only then does a missing record prove that none began.
    pub begins_recorded: bool,
    /// Who was asked, if that is on record.
    pub provider: Option<String>,
    /// Workers that were lost before while they held it.
    pub deaths: i16,
}

/// Locks up to `rows` PROCESSING deliveries of these shards whose lease is over by the database's clock. `mark`: leases
/// that ended before it are not looked at.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing is locked then.
pub async fn overdue(conn: &mut Conn, shards: &[i16], mark: DateTime<Utc>, rows: i64) -> Result<Vec<Overdue>> {
    let found = sqlx::query_file!("sql/delivery/overdue.sql", shards, mark, rows).fetch_all(conn).await?;
    Ok(found
        .into_iter()
        .map(|r| Overdue {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            head: head!(r, Status::Processing, r.cancel_requested),
            worker: Tsid(r.worker),
            lease_until: r.lease_until,
            begun: r.begun,
            begins_recorded: r.begins_recorded,
            provider: r.provider,
            deaths: r.deaths,
        })
        .collect())
}

/// Makes up to `rows` SCHEDULED deliveries PENDING that are due by `now`, ready from `now` on. `mark`: what was due
/// before it is not looked at. Returns shard and lane of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
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

/// A delivery as the law sees it, and where it lives.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub head: DeliveryFacts,
}

impl Waiting {
    /// A delivery that waits again after this step.
    pub fn after(settle: &Settle) -> Waiting {
        let Settle { key, lane, head, step, .. } = settle;
        let max_attempts = head.max_attempts + i16::from(step.refund);
        let (status, possibly_sent) = (step.status, head.possibly_sent || step.possibly_sent);
        Waiting { key: *key, lane: *lane, head: DeliveryFacts { status, max_attempts, possibly_sent, ..*head } }
    }
}

/// Where a sweep stands in the claim index.
pub type SweepPosition = (i16, i16, DateTime<Utc>);

/// One slice of a sweep.
pub struct Swept {
    /// Those that became worthless while waiting.
    pub expired: Vec<Waiting>,
    /// The last row looked at; none at the end of the index.
    pub next: Option<SweepPosition>,
}

/// Looks at the next `rows` PENDING deliveries behind `from`, and returns those that expired by `now`. The look is
/// bounded, not the find: a large backlog is swept in slices.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn worthless(db: impl Db<'_>, from: SweepPosition, now: DateTime<Utc>, rows: i64) -> Result<Swept> {
    let found =
        sqlx::query_file!("sql/delivery/worthless.sql", from.0, from.1, from.2, now, rows).fetch_all(db).await?;
    let full = found.last().is_some_and(|r| r.position >= rows);
    let next = found.last().filter(|_| full).map(|r| (r.shard, r.lane, r.ready_at));
    let expired = found.into_iter().filter(|r| r.expires_at.is_some_and(|at| at <= now));
    let expired = expired
        .map(|r| {
            let head = head!(r, Status::Pending, false);
            Waiting { key: key(r.shard, r.message_id, r.no), lane: Lane(r.lane), head }
        })
        .collect();
    Ok(Swept { expired, next })
}

/// The deliveries of a partner's message that are not settled yet. None where the message is not the partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn unsettled(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Vec<Waiting>> {
    let rows = sqlx::query_file!("sql/delivery/unsettled.sql", partner_id.0, shard, message_id.0).fetch_all(db).await?;
    rows.into_iter()
        .map(|r| {
            let head = head!(r, word(&r.status, "status")?, r.cancel_requested);
            let key = key(r.shard, r.message_id, r.no);
            Ok(Waiting { key, lane: Lane(r.lane), head })
        })
        .collect()
}

/// Notes the wish to cancel a partner's message: on PROCESSING deliveries, which end canceled if no provider takes them
/// now, and on settled ones, whose place no fallback takes any more.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn request_cancel(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/delivery/request_cancel.sql", partner_id.0, shard, message_id.0).execute(db).await?;
    Ok(())
}
