//! Deliveries as receipts find and move them.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::model::stats::{Counts, count_delta};
use crate::store::keys::{Keys, key};
use crate::store::stats::StatDeltas;
use crate::store::{Conn, Db, word};

/// Statuses that evidence of an accepted attempt may still change to SENT.
const LIFTED: [Status; 3] = [Status::Scheduled, Status::Pending, Status::Undetermined];

/// A delivery that is SENT because an attempt that was given up turned out to have been accepted.
pub struct Lifted {
    pub key: DeliveryKey,
    pub seq: i16,
    pub attempt: i16,
    pub provider: Option<String>,
    pub partner_id: Tsid,
    pub lane: Lane,
}

/// Makes those of these deliveries SENT that have an accepted attempt, and whose status says less; with event and
/// statistics. A retry that waits is called off by it. Returns those that changed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn apply_late_acceptances(db: impl Db<'_>, keys: &[DeliveryKey], now: DateTime<Utc>) -> Result<Vec<Lifted>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let law = StatDeltas::of(&LIFTED, |was| count_delta(was, Status::Sent));
    let rows = sqlx::query_file!(
        "sql/delivery/apply_late_acceptances.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        now,
        &law.status,
        &law.total,
        &law.success,
        &law.failed,
    )
    .fetch_all(db)
    .await?;
    let row = rows.into_iter().map(|r| Lifted {
        key: key(r.shard, r.message_id, r.no),
        seq: r.event_seq,
        attempt: r.attempt,
        provider: r.provider,
        partner_id: Tsid(r.partner_id),
        lane: Lane(r.lane),
    });
    Ok(row.collect())
}

/// A delivery whose row is held, as receipts find it.
#[derive(Debug, Clone)]
pub struct DeliveryHead {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub partner_id: Tsid,
    pub status: Status,
    pub attempt: i16,
    pub reason: Option<String>,
    pub provider: Option<String>,
    pub has_fallback: bool,
    pub receipt_due: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
}

macro_rules! found {
    ($r:expr) => {
        DeliveryHead {
            key: key($r.shard, $r.message_id, $r.no),
            lane: Lane($r.lane),
            partner_id: Tsid($r.partner_id),
            status: word(&$r.status, "status")?,
            attempt: $r.attempt,
            reason: $r.reason,
            provider: $r.provider,
            has_fallback: $r.has_fallback,
            receipt_due: $r.receipt_due,
            settled_at: $r.settled_at,
        }
    };
}

/// Locks these deliveries until the transaction ends, in the order of their keys.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds one for longer than the lock
/// time-out. `Error::Internal` for a status that this program does not know.
pub async fn heads(conn: &mut Conn, keys: &[DeliveryKey]) -> Result<Vec<DeliveryHead>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let rows =
        sqlx::query_file!("sql/delivery/heads.sql", &keys.shards, &keys.message_ids, &keys.nos, keys.low, keys.high);
    rows.fetch_all(conn).await?.into_iter().map(|r| Ok(found!(r))).collect()
}

/// Locks up to `rows` SENT deliveries of these shards whose receipt was due by `now`. `lists`: providers whose lists of
/// results are read; theirs are left out until the list was read to its end after that time.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. `Error::Internal` for a status that this program does not
/// know.
pub async fn due(
    conn: &mut Conn,
    shards: &[i16],
    now: DateTime<Utc>,
    rows: i64,
    lists: &[String],
) -> Result<Vec<DeliveryHead>> {
    let rows = sqlx::query_file!("sql/delivery/due.sql", shards, now, rows, lists);
    rows.fetch_all(conn).await?.into_iter().map(|r| Ok(found!(r))).collect()
}

/// What is made of a held delivery by receipts, or because none came.
#[derive(Debug, Clone)]
pub struct Receive {
    pub key: DeliveryKey,
    pub was: Status,
    pub status: Status,
    pub reason: Option<String>,
    pub attempt: i16,
    pub provider: Option<String>,
    pub receipt_due: Option<DateTime<Utc>>,
}

/// One that was written: the number of its event, and its provider.
pub struct Moved {
    pub key: DeliveryKey,
    pub seq: i16,
    pub provider: Option<String>,
}

/// Writes what receipts, or their absence, make of deliveries that `heads` or `due` locked; with events and statistics.
/// Each key once. Returns the number of each event, and the provider by then.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn apply_receipts(db: impl Db<'_>, all: &[Receive], now: DateTime<Utc>) -> Result<Vec<Moved>> {
    let Some(keys) = Keys::of(all.iter().map(|r| r.key)) else { return Ok(Vec::new()) };
    let counts =
        |part: fn(Counts) -> i16| -> Vec<i16> { all.iter().map(|r| part(count_delta(r.was, r.status))).collect() };
    let event = |r: &Receive| r.status.event_kind().map(|e| e.as_str().to_owned());
    let rows = sqlx::query_file!(
        "sql/delivery/apply_receipts.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|r| r.status.as_str().to_owned()).collect::<Vec<_>>(),
        &all.iter().map(event).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|r| r.reason.clone()).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|r| r.attempt).collect::<Vec<_>>(),
        &all.iter().map(|r| r.provider.clone()).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|r| r.receipt_due).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &counts(|c| c.total),
        &counts(|c| c.success),
        &counts(|c| c.failed),
        now,
    )
    .fetch_all(db)
    .await?;
    let moved = rows.into_iter().map(|r| Moved {
        key: key(r.shard, r.message_id, r.no),
        seq: r.event_seq,
        provider: r.provider,
    });
    Ok(moved.collect())
}

/// Sets until when the receipt of each of these locked deliveries is waited for; none: it is not waited for any more.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn await_receipts(db: impl Db<'_>, all: &[(DeliveryKey, Option<DateTime<Utc>>)]) -> Result<()> {
    let Some(keys) = Keys::of(all.iter().map(|a| a.0)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/delivery/await.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|a| a.1).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .execute(db)
    .await?;
    Ok(())
}
