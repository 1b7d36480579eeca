//! Deliveries as receipts and late acceptances change them.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::model::stats::{Counts, count_delta};
use crate::store::keys::{KeyColumns, key};
use crate::store::stats::StatDeltas;
use crate::store::{Conn, Db, parse_word};

use super::settle::move_send_records;

/// Statuses that evidence of an accepted attempt may still change to SENT.
const CORRECTABLE: [Status; 3] = [Status::Scheduled, Status::Pending, Status::Undetermined];

/// A delivery that became SENT because an attempt given up as lost had been accepted.
pub struct LateAcceptance {
    pub key: DeliveryKey,
    /// Number of the event: 'delivery.sent', of an item 'delivery.delivered'.
    pub event_seq: i16,
    /// The accepted attempt, and its provider.
    pub attempt: i16,
    pub provider: Option<String>,
    pub partner_id: Tsid,
    pub lane: Lane,
}

/// Changes those of these deliveries to SENT, or DELIVERED over INAPP, that have an accepted attempt and a status that
/// admits it, with event and statistics. A waiting retry is thereby called off. Returns the changed deliveries.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn apply_late_acceptances(
    db: impl Db<'_>,
    keys: &[DeliveryKey],
    now: DateTime<Utc>,
) -> Result<Vec<LateAcceptance>> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let law = StatDeltas::of(&CORRECTABLE, |was| count_delta(was, Status::Sent));
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
    let row = rows.into_iter().map(|r| LateAcceptance {
        key: key(r.shard, r.message_id, r.no),
        event_seq: r.event_seq,
        attempt: r.attempt,
        provider: r.provider,
        partner_id: Tsid(r.partner_id),
        lane: Lane(r.lane),
    });
    Ok(row.collect())
}

/// A locked delivery as the evaluation of receipts needs it.
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
    /// Until when a receipt is awaited.
    pub receipt_due: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
}

macro_rules! found {
    ($r:expr) => {
        DeliveryHead {
            key: key($r.shard, $r.message_id, $r.no),
            lane: Lane($r.lane),
            partner_id: Tsid($r.partner_id),
            status: parse_word(&$r.status, "status")?,
            attempt: $r.attempt,
            reason: $r.reason,
            provider: $r.provider,
            has_fallback: $r.has_fallback,
            receipt_due: $r.receipt_due,
            settled_at: $r.settled_at,
        }
    };
}

/// Locks these deliveries in the order of their keys, until the transaction ends. Records of sends in their rows are
/// moved to attempts and events, because what follows changes the deliveries.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored status that this program does not know.
pub async fn lock_for_receipts(conn: &mut Conn, keys: &[DeliveryKey]) -> Result<Vec<DeliveryHead>> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/lock_for_receipts.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        keys.low,
        keys.high
    );
    let rows = rows.fetch_all(&mut *conn).await?;
    let with_record = rows.iter().filter(|r| r.has_send_record);
    let with_record: Vec<DeliveryKey> = with_record.map(|r| key(r.shard, r.message_id, r.no)).collect();
    move_send_records(conn, &with_record).await?;
    rows.into_iter().map(|r| Ok(found!(r))).collect()
}

/// Locks up to `rows` SENT deliveries of these shards whose receipt was due by `now`. Skips rows locked by others,
/// deliveries with a receipt that is not evaluated yet, and those of polled providers (`lists`) whose list was not read
/// to its end since the receipt was due.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored status that this program does not know.
pub async fn lock_receipt_overdue(
    conn: &mut Conn,
    shards: &[i16],
    now: DateTime<Utc>,
    rows: i64,
    lists: &[String],
) -> Result<Vec<DeliveryHead>> {
    let rows = sqlx::query_file!("sql/delivery/lock_receipt_overdue.sql", shards, now, rows, lists);
    rows.fetch_all(conn).await?.into_iter().map(|r| Ok(found!(r))).collect()
}

/// A change of a locked delivery that follows from its receipts, or from their absence.
#[derive(Debug, Clone)]
pub struct ReceiptUpdate {
    pub key: DeliveryKey,
    /// For the statistics.
    pub previous_status: Status,
    pub status: Status,
    pub reason: Option<String>,
    /// The attempt that the event names.
    pub attempt: i16,
    pub provider: Option<String>,
    /// Until when a further receipt is awaited.
    pub receipt_due: Option<DateTime<Utc>>,
}

/// A delivery that was changed.
pub struct UpdatedDelivery {
    pub key: DeliveryKey,
    /// Number of its new event.
    pub event_seq: i16,
    /// Its provider after the change.
    pub provider: Option<String>,
}

/// Writes changes of deliveries locked by `lock_for_receipts` or `lock_receipt_overdue`, with events and statistics.
/// Each key once.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn apply_receipts(
    db: impl Db<'_>,
    all: &[ReceiptUpdate],
    now: DateTime<Utc>,
) -> Result<Vec<UpdatedDelivery>> {
    let Some(keys) = KeyColumns::of(all.iter().map(|r| r.key)) else { return Ok(Vec::new()) };
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> {
        all.iter().map(|r| part(count_delta(r.previous_status, r.status))).collect()
    };
    let event = |r: &ReceiptUpdate| r.status.event_kind().map(|e| e.as_str().to_owned());
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
    let moved = rows.into_iter().map(|r| UpdatedDelivery {
        key: key(r.shard, r.message_id, r.no),
        event_seq: r.event_seq,
        provider: r.provider,
    });
    Ok(moved.collect())
}

/// Sets until when a receipt of each of these locked deliveries is awaited; None: no longer.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_receipt_due(db: impl Db<'_>, all: &[(DeliveryKey, Option<DateTime<Utc>>)]) -> Result<()> {
    let Some(keys) = KeyColumns::of(all.iter().map(|a| a.0)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/delivery/set_receipt_due.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|a| a.1).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .execute(db)
    .await?;
    Ok(())
}
