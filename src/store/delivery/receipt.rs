//! Deliveries as receipts find and move them.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{Key, Status};
use crate::model::lane::Lane;
use crate::model::stats::{Counts, change};
use crate::store::keys::{Keys, key};
use crate::store::stats::Law;
use crate::store::{Conn, Db, word};

/// What does not know better than that nobody knows: an accepted attempt lifts it.
const LIFTED: [Status; 3] = [Status::Scheduled, Status::Pending, Status::Undetermined];

/// A delivery that turned out to have been sent.
pub struct Lifted {
    pub key: Key,
    pub seq: i16,
    pub attempt: i16,
    pub provider: Option<String>,
    pub partner_id: Tsid,
    pub lane: Lane,
}

/// Lifts those of these deliveries to SENT that have an accepted attempt and do not know it.
pub async fn evidence(db: impl Db<'_>, keys: &[Key], now: DateTime<Utc>) -> Result<Vec<Lifted>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let law = Law::of(&LIFTED, |was| change(was, Status::Sent));
    let rows = sqlx::query_file!(
        "sql/delivery/evidence.sql",
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
pub struct Found {
    pub key: Key,
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
        Found {
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

/// Holds these deliveries until the transaction ends.
pub async fn heads(conn: &mut Conn, keys: &[Key]) -> Result<Vec<Found>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(Vec::new()) };
    let rows =
        sqlx::query_file!("sql/delivery/heads.sql", &keys.shards, &keys.message_ids, &keys.nos, keys.low, keys.high,);
    rows.fetch_all(conn).await?.into_iter().map(|r| Ok(found!(r))).collect()
}

/// Holds at most `rows` deliveries for which a receipt should have come by now; `lists`: the providers whose lists are read.
pub async fn due(
    conn: &mut Conn,
    shards: &[i16],
    now: DateTime<Utc>,
    rows: i64,
    lists: &[String],
) -> Result<Vec<Found>> {
    let rows = sqlx::query_file!("sql/delivery/due.sql", shards, now, rows, lists);
    rows.fetch_all(conn).await?.into_iter().map(|r| Ok(found!(r))).collect()
}

/// What is made of a held delivery by receipts, or because none came.
#[derive(Debug, Clone)]
pub struct Receive {
    pub key: Key,
    pub was: Status,
    pub status: Status,
    pub reason: Option<String>,
    pub attempt: i16,
    pub provider: Option<String>,
    pub receipt_due: Option<DateTime<Utc>>,
}

/// One that was written: the number of its event, and its provider.
pub struct Moved {
    pub key: Key,
    pub seq: i16,
    pub provider: Option<String>,
}

pub async fn receive(db: impl Db<'_>, all: &[Receive], now: DateTime<Utc>) -> Result<Vec<Moved>> {
    let Some(keys) = Keys::of(all.iter().map(|r| r.key)) else { return Ok(Vec::new()) };
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> { all.iter().map(|r| part(change(r.was, r.status))).collect() };
    let event = |r: &Receive| r.status.event().map(|e| e.as_str().to_owned());
    let rows = sqlx::query_file!(
        "sql/delivery/receive.sql",
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

/// Until when a receipt is waited for, of deliveries that are held.
pub async fn await_receipts(db: impl Db<'_>, all: &[(Key, Option<DateTime<Utc>>)]) -> Result<()> {
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
