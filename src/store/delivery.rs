//! Deliveries: the queue's few statements, and what people ask.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::message::Telling;
use super::redrive::Dead;
use super::stats::Law;
use super::{Conn, Db, word};
use crate::crypt::Keyring;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{BEHIND, Head, Key, OutcomeKind, PARKED, SET_APART, Status, Step};
use crate::model::endpoint::Endpoint;
use crate::model::lane::Lane;
use crate::model::retry::WEBHOOK_ATTEMPTS;
use crate::model::stats::{Counts, change};
use crate::model::watermark::Place;

/// The law's view of a row. `$status` and `$cancel` are given where the statement does not return them.
macro_rules! head {
    ($r:expr, $status:expr, $cancel:expr) => {
        Head {
            status: $status,
            channel: Lane($r.lane).channel(),
            attempt: $r.attempt,
            max_attempts: $r.max_attempts,
            possibly_sent: $r.possibly_sent,
            cancel_requested: $cancel,
            expires_at: $r.expires_at,
            has_fallback: $r.has_fallback,
        }
    };
}

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
    pub key: Key,
    pub lane: Lane,
    pub head: Head,
    pub content: i16,
    pub ready_at: DateTime<Utc>,
    pub recipient: String,
    /// Who had it last.
    pub provider: Option<String>,
}

/// Claims at most `most` deliveries for `worker`, for `lease`.
pub async fn claim(
    db: impl Db<'_>,
    asks: &[Ask],
    most: i64,
    worker: Tsid,
    lease: std::time::Duration,
) -> Result<Vec<Claimed>> {
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
            key: Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no },
            lane: Lane(r.lane),
            head: head!(r, Status::Processing, r.cancel_requested),
            content: r.content,
            ready_at: r.ready_at,
            recipient: r.recipient,
            provider: r.provider,
        })
        .collect())
}

/// One step to write, fenced by the status and attempt it started from.
#[derive(Debug, Clone)]
pub struct Settle {
    pub key: Key,
    pub lane: Lane,
    /// As it was when the step was decided; its status and attempt are the fence.
    pub head: Head,
    pub step: Step,
    pub provider: Option<String>,
    /// The attempt that ends with this step; none when a waiting delivery is canceled or expires.
    pub tried: Option<Tried>,
    /// Id of the message that tells of the step's event, if somebody wants to hear of it.
    pub notice_id: Tsid,
    /// Until when a receipt is waited for, if it is.
    pub receipt_due: Option<DateTime<Utc>>,
    /// How many webhooks of its sequence may go at once when it ends; 0: it is in none.
    pub followers: i64,
    /// Its delivery is set apart by this step.
    pub apart: Option<Apart>,
}

/// How a delivery waits whose worker was lost.
#[derive(Debug, Clone, Copy)]
pub struct Apart {
    /// Workers that were lost while they held it.
    pub deaths: i16,
    /// From when it may be claimed, alone.
    pub ready_at: DateTime<Utc>,
}

impl Settle {
    /// The same; but if its delivery waits after it, it waits apart from all others.
    pub fn set_apart(mut self, deaths: i16) -> Settle {
        if let Some(ready_at) = self.step.ready_at {
            self.apart = Some(Apart { deaths, ready_at });
            (self.step.status, self.step.ready_at) = (Status::Scheduled, Some(SET_APART));
        }
        self
    }
}

#[derive(Debug, Clone)]
pub struct Tried {
    pub outcome: OutcomeKind,
    /// Its beginning is on record.
    pub begun: bool,
    pub worker: Tsid,
    pub claimed_at: DateTime<Utc>,
    pub called_at: Option<DateTime<Utc>>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub provider_ref: Option<String>,
}

/// A step that kept its fence and was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Won {
    pub key: Key,
    /// By now; its step may have been decided before.
    pub cancel_requested: bool,
    /// Endpoints are told of its event.
    pub heard: bool,
}

/// Writes steps with their attempts and events; those that lost their fence write nothing. `settles` holds each key once,
/// sorted by key: two batches then never wait for each other in a ring.
pub async fn settle(db: impl Db<'_>, settles: &[Settle], now: DateTime<Utc>) -> Result<Vec<Won>> {
    let ids: Vec<i64> = settles.iter().map(|s| s.key.message_id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let text = |f: fn(&Settle) -> Option<&str>| settles.iter().map(|s| f(s).map(str::to_owned)).collect::<Vec<_>>();
    let tried = |s: &Settle| s.tried.clone();
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> {
        settles.iter().map(|s| part(change(s.head.status, s.step.status))).collect()
    };
    let rows = sqlx::query_file!(
        "sql/delivery/settle.sql",
        &settles.iter().map(|s| s.key.shard).collect::<Vec<_>>(),
        &ids,
        &settles.iter().map(|s| s.key.no).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.head.attempt).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.head.status.as_str().to_owned()).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.step.status.as_str().to_owned()).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.step.ready_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &settles.iter().map(|s| s.step.possibly_sent).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.step.refund).collect::<Vec<_>>(),
        &text(|s| s.step.status.event().map(|e| e.as_str())) as &[Option<String>],
        &text(|s| s.step.reason) as &[Option<String>],
        &text(|s| s.provider.as_deref()) as &[Option<String>],
        &text(|s| s.tried.as_ref().map(|t| t.outcome.as_str())) as &[Option<String>],
        &settles.iter().map(|s| s.tried.as_ref().map(|t| t.worker.0)).collect::<Vec<_>>() as &[Option<i64>],
        &settles.iter().map(|s| tried(s).map(|t| t.claimed_at)).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &settles.iter().map(|s| tried(s).and_then(|t| t.called_at)).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &text(|s| s.tried.as_ref().and_then(|t| t.code.as_deref())) as &[Option<String>],
        &text(|s| s.tried.as_ref().and_then(|t| t.detail.as_deref())) as &[Option<String>],
        &text(|s| s.tried.as_ref().and_then(|t| t.provider_ref.as_deref())) as &[Option<String>],
        now,
        low,
        high,
        &settles.iter().map(|s| s.tried.as_ref().is_some_and(|t| t.begun)).collect::<Vec<_>>(),
        &counts(|c| c.total),
        &counts(|c| c.success),
        &counts(|c| c.failed),
        &settles.iter().map(|s| s.notice_id.0).collect::<Vec<_>>(),
        WEBHOOK_ATTEMPTS,
        &settles.iter().map(|s| s.receipt_due).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .fetch_all(db)
    .await?;
    let key = |shard, message_id, no| Key { shard, message_id: Tsid(message_id), no };
    Ok(rows
        .into_iter()
        .map(|r| Won { key: key(r.shard, r.message_id, r.no), cancel_requested: r.cancel_requested, heard: r.heard })
        .collect())
}

/// Locks these heads, one after the other in the order of their keys, until the transaction ends.
pub async fn lock(conn: &mut Conn, keys: &[Key]) -> Result<()> {
    sqlx::query_file!(
        "sql/delivery/lock.sql",
        &keys.iter().map(|k| k.shard).collect::<Vec<_>>(),
        &keys.iter().map(|k| k.message_id.0).collect::<Vec<_>>(),
        &keys.iter().map(|k| k.no).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

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
    let law = Law::of(&LIFTED, |was| change(was, Status::Sent));
    let rows = sqlx::query_file!(
        "sql/delivery/evidence.sql",
        &keys.iter().map(|k| k.shard).collect::<Vec<_>>(),
        &keys.iter().map(|k| k.message_id.0).collect::<Vec<_>>(),
        &keys.iter().map(|k| k.no).collect::<Vec<_>>(),
        now,
        &law.status,
        &law.total,
        &law.success,
        &law.failed,
    )
    .fetch_all(db)
    .await?;
    let row = rows.into_iter().map(|r| Lifted {
        key: Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no },
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
            key: Key { shard: $r.shard, message_id: Tsid($r.message_id), no: $r.no },
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
    let ids: Vec<i64> = keys.iter().map(|k| k.message_id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/heads.sql",
        &keys.iter().map(|k| k.shard).collect::<Vec<_>>(),
        &ids,
        &keys.iter().map(|k| k.no).collect::<Vec<_>>(),
        low,
        high,
    );
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
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> { all.iter().map(|r| part(change(r.was, r.status))).collect() };
    let event = |r: &Receive| r.status.event().map(|e| e.as_str().to_owned());
    let rows = sqlx::query_file!(
        "sql/delivery/receive.sql",
        &all.iter().map(|r| r.key.shard).collect::<Vec<_>>(),
        &all.iter().map(|r| r.key.message_id.0).collect::<Vec<_>>(),
        &all.iter().map(|r| r.key.no).collect::<Vec<_>>(),
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
    let key = |shard, id, no| Key { shard, message_id: Tsid(id), no };
    let moved = rows.into_iter().map(|r| Moved {
        key: key(r.shard, r.message_id, r.no),
        seq: r.event_seq,
        provider: r.provider,
    });
    Ok(moved.collect())
}

/// Extends the lease of an attempt of `worker` by `lease` from now on, by the database's clock; false if it has lost it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached: the lease may end.
pub async fn extend(db: impl Db<'_>, key: Key, attempt: i16, worker: Tsid, lease: std::time::Duration) -> Result<bool> {
    let status = Status::Processing.as_str();
    let Key { shard, message_id, no } = key;
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

/// Until when a receipt is waited for, of deliveries that are held.
pub async fn await_receipts(db: impl Db<'_>, all: &[(Key, Option<DateTime<Utc>>)]) -> Result<()> {
    sqlx::query_file!(
        "sql/delivery/await.sql",
        &all.iter().map(|a| a.0.shard).collect::<Vec<_>>(),
        &all.iter().map(|a| a.0.message_id.0).collect::<Vec<_>>(),
        &all.iter().map(|a| a.0.no).collect::<Vec<_>>(),
        &all.iter().map(|a| a.1).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A delivery whose place may be taken; its row is held.
#[derive(Debug, Clone)]
pub struct Origin {
    pub key: Key,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    pub content: i16,
    pub partner_id: Tsid,
    pub provider: Option<String>,
    pub recipient: String,
    pub written: Option<String>,
}

pub async fn origins(conn: &mut Conn, keys: &[Key]) -> Result<Vec<Origin>> {
    let ids: Vec<i64> = keys.iter().map(|k| k.message_id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/origins.sql",
        &keys.iter().map(|k| k.shard).collect::<Vec<_>>(),
        &ids,
        &keys.iter().map(|k| k.no).collect::<Vec<_>>(),
        low,
        high,
    );
    let origin = rows.fetch_all(conn).await?.into_iter().map(|r| {
        Ok(Origin {
            key: Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no },
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

/// Writes them; returns the number of the event that tells it, by what they took the place of.
pub async fn fall_back(db: impl Db<'_>, all: &[StandIn], now: DateTime<Utc>) -> Result<HashMap<Key, i16>> {
    let rows = sqlx::query_file!(
        "sql/delivery/fall_back.sql",
        &all.iter().map(|s| s.origin.key.shard).collect::<Vec<_>>(),
        &all.iter().map(|s| s.origin.key.message_id.0).collect::<Vec<_>>(),
        &all.iter().map(|s| s.origin.key.no).collect::<Vec<_>>(),
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
    let key = |shard, id, no| Key { shard, message_id: Tsid(id), no };
    Ok(rows.into_iter().map(|r| (key(r.shard, r.message_id, r.no), r.event_seq)).collect())
}

/// A row of a place, as its list is ordered: `ready_at`, message, number.
pub type ReadUpTo = (DateTime<Utc>, Tsid, i16);

/// Locks PENDING deliveries of these places though another channel stands by, each place from behind a row on, in the order
/// of (`ready_at`, key); at most `rows` of each place. Returns each with its `ready_at`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing is locked then.
pub async fn standing_by(
    conn: &mut Conn,
    places: &[(Place, ReadUpTo)],
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
        let key = Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no };
        (Waiting { key, lane: Lane(r.lane), head }, r.ready_at)
    });
    Ok(waiting.collect())
}

/// A dead letter that is PENDING again.
#[derive(Debug, Clone, Copy)]
pub struct Redriven {
    pub key: Key,
    pub lane: Lane,
    pub attempt: i16,
    pub event_seq: i16,
}

/// Makes dead letters PENDING again, each with how many attempts it may have then; those that changed since they were looked
/// at are left alone. Sorted by key, each once.
pub async fn redrive(db: impl Db<'_>, dead: &[(Dead, i16)], now: DateTime<Utc>) -> Result<Vec<Redriven>> {
    let ids: Vec<i64> = dead.iter().map(|(d, _)| d.key.message_id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> {
        dead.iter().map(|(d, _)| part(change(d.status, Status::Pending))).collect()
    };
    let rows = sqlx::query_file!(
        "sql/delivery/redrive.sql",
        &dead.iter().map(|(d, _)| d.key.shard).collect::<Vec<_>>(),
        &ids,
        &dead.iter().map(|(d, _)| d.key.no).collect::<Vec<_>>(),
        &dead.iter().map(|(d, _)| d.event_seq).collect::<Vec<_>>(),
        &dead.iter().map(|(d, _)| d.status.as_str().to_owned()).collect::<Vec<_>>(),
        &dead.iter().map(|(_, attempts)| *attempts).collect::<Vec<_>>(),
        &dead.iter().map(|(d, _)| d.settled_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &counts(|c| c.total),
        &counts(|c| c.success),
        &counts(|c| c.failed),
        now,
        low,
        high,
    )
    .fetch_all(db)
    .await?;
    let key = |shard, message_id, no| Key { shard, message_id: Tsid(message_id), no };
    Ok(rows
        .into_iter()
        .map(|r| Redriven {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            attempt: r.attempt,
            event_seq: r.event_seq,
        })
        .collect())
}

pub struct Overdue {
    pub key: Key,
    pub lane: Lane,
    pub head: Head,
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

/// Locks at most `rows` deliveries whose lease, from `mark` on, is over.
pub async fn overdue(conn: &mut Conn, shards: &[i16], mark: DateTime<Utc>, rows: i64) -> Result<Vec<Overdue>> {
    let found = sqlx::query_file!("sql/delivery/overdue.sql", shards, mark, rows).fetch_all(conn).await?;
    Ok(found
        .into_iter()
        .map(|r| Overdue {
            key: Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no },
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

/// Makes at most `rows` due deliveries PENDING; returns where they wait now, one entry each.
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
    pub key: Key,
    pub lane: Lane,
    pub head: Head,
}

impl Waiting {
    /// A delivery that waits again after this step.
    pub fn after(settle: &Settle) -> Waiting {
        let Settle { key, lane, head, step, .. } = settle;
        let max_attempts = head.max_attempts + i16::from(step.refund);
        let (status, possibly_sent) = (step.status, head.possibly_sent || step.possibly_sent);
        Waiting { key: *key, lane: *lane, head: Head { status, max_attempts, possibly_sent, ..*head } }
    }
}

/// Where a sweep stands in the claim index.
pub type SweepPosition = (i16, i16, DateTime<Utc>);

pub struct Swept {
    /// Those that became worthless while waiting.
    pub expired: Vec<Waiting>,
    /// The last row looked at; none at the end of the index.
    pub next: Option<SweepPosition>,
}

/// Looks at the next `rows` waiting deliveries.
pub async fn worthless(db: impl Db<'_>, from: SweepPosition, now: DateTime<Utc>, rows: i64) -> Result<Swept> {
    let found =
        sqlx::query_file!("sql/delivery/worthless.sql", from.0, from.1, from.2, now, rows).fetch_all(db).await?;
    let full = found.last().is_some_and(|r| r.position >= rows);
    let next = found.last().filter(|_| full).map(|r| (r.shard, r.lane, r.ready_at));
    let expired = found.into_iter().filter(|r| r.expires_at.is_some_and(|at| at <= now));
    let expired = expired
        .map(|r| {
            let head = head!(r, Status::Pending, false);
            Waiting { key: Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no }, lane: Lane(r.lane), head }
        })
        .collect();
    Ok(Swept { expired, next })
}

/// A message's deliveries that are not settled yet.
pub async fn open(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Vec<Waiting>> {
    let rows = sqlx::query_file!("sql/delivery/open.sql", partner_id.0, shard, message_id.0).fetch_all(db).await?;
    rows.into_iter()
        .map(|r| {
            let head = head!(r, word(&r.status, "status")?, r.cancel_requested);
            let key = Key { shard: r.shard, message_id: Tsid(r.message_id), no: r.no };
            Ok(Waiting { key, lane: Lane(r.lane), head })
        })
        .collect()
}

/// Whether something of a message is not settled yet, or was settled at this time or later.
pub async fn seen(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    settled_since: DateTime<Utc>,
) -> Result<bool> {
    let seen = sqlx::query_file_scalar!("sql/delivery/seen.sql", partner_id.0, shard, message_id.0, settled_since);
    Ok(seen.fetch_one(db).await?)
}

/// Notes on what is held by a worker that it is no longer wanted, and on what is settled that nothing takes its place.
pub async fn request_cancel(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/delivery/request_cancel.sql", partner_id.0, shard, message_id.0).execute(db).await?;
    Ok(())
}

/// A delivery as people look at it.
#[derive(Debug, Clone)]
pub struct Row {
    pub partner_id: Tsid,
    pub shard: i16,
    pub message_id: Tsid,
    pub no: i16,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    pub max_attempts: i16,
    pub content: i16,
    pub possibly_sent: bool,
    pub cancel_requested: bool,
    pub ready_at: DateTime<Utc>,
    pub lease_until: Option<DateTime<Utc>>,
    pub worker: Option<Tsid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
    pub recipient: String,
    /// How the partner wrote the recipient, where that is not the same.
    pub written: Option<String>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    /// Where a fallback was made: the number of the first of them.
    pub chain: Option<i16>,
    pub has_fallback: bool,
    pub receipt_due: Option<DateTime<Utc>>,
}

impl Row {
    /// The recipient in the partner's words.
    pub fn to(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.recipient)
    }
}

macro_rules! row {
    ($r:expr) => {
        Row {
            partner_id: Tsid($r.partner_id),
            shard: $r.shard,
            message_id: Tsid($r.message_id),
            no: $r.no,
            lane: Lane($r.lane),
            status: word(&$r.status, "status")?,
            attempt: $r.attempt,
            max_attempts: $r.max_attempts,
            content: $r.content,
            possibly_sent: $r.possibly_sent,
            cancel_requested: $r.cancel_requested,
            ready_at: $r.ready_at,
            lease_until: $r.lease_until,
            worker: $r.worker.map(Tsid),
            expires_at: $r.expires_at,
            settled_at: $r.settled_at,
            recipient: $r.recipient,
            written: $r.written,
            provider: $r.provider,
            reason: $r.reason,
            chain: $r.chain,
            has_fallback: $r.has_fallback,
            receipt_due: $r.receipt_due,
        }
    };
}

pub async fn of_message(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    no: Option<i16>,
) -> Result<Vec<Row>> {
    let rows = sqlx::query_file!("sql/delivery/of_message.sql", partner_id.0, shard, message_id.0, no);
    rows.fetch_all(db).await?.into_iter().map(|r| Ok(row!(r))).collect()
}

/// Which deliveries to list.
#[derive(Debug, Clone)]
pub struct Filter {
    pub status: Option<Status>,
    /// First and last lane of a channel; none: all channels but WEBHOOK.
    pub lanes: Option<(i16, i16)>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    /// A recipient as it is kept, or as the partner wrote it …
    pub to: Option<String>,
    /// … as E.164, if it is a phone number …
    pub phone: Option<String>,
    /// … and in small letters, if it is an e-mail address.
    pub mailbox: Option<String>,
}

/// Where a page of deliveries begins: behind this delivery, within these ids.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub after: (Tsid, i16),
    pub below: Tsid,
    pub from: Tsid,
}

/// Deliveries of these partners, each with its shard.
pub async fn list(
    db: impl Db<'_>,
    owners: &[(Tsid, i16)],
    filter: &Filter,
    window: Window,
    rows: i64,
) -> Result<Vec<Row>> {
    let found = sqlx::query_file!(
        "sql/delivery/list.sql",
        &owners.iter().map(|o| o.0.0).collect::<Vec<_>>(),
        &owners.iter().map(|o| o.1).collect::<Vec<_>>(),
        window.after.0.0,
        window.after.1,
        window.below.0,
        window.from.0,
        filter.status.map(Status::as_str),
        filter.lanes.map(|l| l.0),
        filter.lanes.map(|l| l.1),
        filter.provider.as_deref(),
        filter.reason.as_deref(),
        filter.to.as_deref(),
        rows,
        filter.phone.as_deref(),
        filter.mailbox.as_deref(),
    )
    .fetch_all(db)
    .await?;
    found.into_iter().map(|r| Ok(row!(r))).collect()
}

/// Which delivery of a message goes to whom, and says what.
pub struct Addressed {
    pub no: i16,
    pub content: i16,
    pub recipient: String,
    pub written: Option<String>,
    pub status: Status,
}

pub async fn contents(db: impl Db<'_>, shard: i16, message_id: Tsid) -> Result<Vec<Addressed>> {
    let rows = sqlx::query_file!("sql/delivery/contents.sql", shard, message_id.0).fetch_all(db).await?.into_iter();
    let row = rows.map(|r| {
        let status = word(&r.status, "status")?;
        Ok(Addressed { no: r.no, content: r.content, recipient: r.recipient, written: r.written, status })
    });
    row.collect()
}

/// Erases what providers said of these deliveries. Their receipts are held.
pub async fn scrub(db: impl Db<'_>, shard: i16, message_id: Tsid, nos: &[i16]) -> Result<()> {
    sqlx::query_file!("sql/delivery/scrub.sql", shard, message_id.0, nos).execute(db).await?;
    Ok(())
}

/// Erases who these deliveries went to.
pub async fn hide(db: impl Db<'_>, shard: i16, message_id: Tsid, nos: &[i16]) -> Result<()> {
    sqlx::query_file!("sql/delivery/hide.sql", shard, message_id.0, nos).execute(db).await?;
    Ok(())
}

/// Lets at most `rows` of what waits for an endpoint at `since` (`PARKED` or `BEHIND`) go; returns where they wait now, one
/// entry each.
pub async fn release(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    since: DateTime<Utc>,
    now: DateTime<Utc>,
    rows: i64,
) -> Result<Vec<(i16, Lane)>> {
    let rows = sqlx::query_file!("sql/delivery/release.sql", shard, recipient, since, now, rows).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (r.shard, Lane(r.lane))).collect())
}

/// Where a walk along what an endpoint got stands: behind this delivery, below this message.
#[derive(Debug, Clone, Copy)]
pub struct Along {
    pub behind: (Tsid, i16),
    pub below: Tsid,
}

/// What was hastened of some of an endpoint's deliveries.
pub struct Hastened {
    pub places: Vec<(i16, Lane)>,
    /// Behind which delivery to go on; none at the end.
    pub next: Option<(Tsid, i16)>,
}

/// Makes those of an endpoint's next `look` deliveries PENDING that wait for another try, `rows` at most, one at least.
pub async fn hasten(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    along: Along,
    (look, rows): (i64, usize),
    now: DateTime<Utc>,
) -> Result<Hastened> {
    let most = i64::try_from(rows).unwrap_or(i64::MAX);
    let ((message, no), below) = (along.behind, along.below.0);
    let found =
        sqlx::query_file!("sql/delivery/hasten.sql", shard, recipient, message.0, no, below, look, most, now, PARKED)
            .fetch_all(db)
            .await?;
    let next = found.last().filter(|r| r.more).map(|r| (Tsid(r.message_id), r.no));
    let places = found.iter().filter_map(|r| Some((shard, Lane(r.lane?)))).collect();
    Ok(Hastened { places, next })
}

/// How many of an endpoint's next `look` deliveries wait for another try, and behind which to go on; none at the end.
pub async fn waiting(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    along: Along,
    look: i64,
    now: DateTime<Utc>,
) -> Result<(i64, Option<(Tsid, i16)>)> {
    let ((message, no), below) = (along.behind, along.below.0);
    let found =
        sqlx::query_file!("sql/delivery/waiting.sql", shard, recipient, message.0, no, below, look, now, PARKED)
            .fetch_optional(db)
            .await?;
    let next = found.as_ref().filter(|r| r.position >= look).map(|r| (Tsid(r.message_id), r.no));
    Ok((found.map_or(0, |r| r.waiting), next))
}

/// One event on its way to an endpoint, and its last call.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub message_id: Tsid,
    pub no: i16,
    pub telling: Telling,
    pub status: Status,
    pub reason: Option<String>,
    pub ready_at: DateTime<Utc>,
    pub settled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// How often the endpoint was called for it.
    pub calls: i64,
    pub last: Option<Call>,
}

/// A call to an endpoint.
#[derive(Debug, Clone)]
pub struct Call {
    pub attempt: i16,
    pub outcome: String,
    pub called_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub code: Option<String>,
    pub reason: Option<String>,
    /// What it answered, cut.
    pub detail: Option<String>,
    /// With which status it took it.
    pub provider_ref: Option<String>,
}

/// Which of an endpoint's deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct WebhookFilter {
    pub status: Option<Status>,
    pub event: Option<&'static str>,
}

/// What an endpoint of a partner got, with ids below one and from another on, newest first.
pub async fn of_endpoint(
    db: impl Db<'_>,
    keyring: &Keyring,
    endpoint: &Endpoint,
    filter: &WebhookFilter,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<Webhook>> {
    let found = sqlx::query_file!(
        "sql/delivery/of_endpoint.sql",
        endpoint.partner_id.0,
        endpoint.shard,
        endpoint.endpoint_id.to_string(),
        below.0,
        from.0,
        filter.status.map(Status::as_str),
        filter.event,
        rows,
    );
    let webhook = found.fetch_all(db).await?.into_iter().map(|r| {
        let message_id = Tsid(r.message_id);
        let call = (r.attempt, r.outcome, r.called_at);
        let last = if let (Some(attempt), Some(outcome), Some(called_at)) = call {
            let (ended_at, code, reason) = (r.ended_at, r.code, r.error);
            let (detail, provider_ref) = (r.answer, r.provider_ref);
            Some(Call { attempt, outcome, called_at, ended_at, code, reason, detail, provider_ref })
        } else {
            None
        };
        Ok(Webhook {
            message_id,
            no: r.no,
            telling: Telling::read(keyring, message_id, r.about.map_or(message_id, Tsid), r.kind, &r.detail, r.content),
            status: word(&r.status, "status")?,
            reason: r.reason,
            ready_at: r.ready_at,
            settled_at: r.settled_at,
            created_at: r.created_at,
            calls: r.calls,
            last,
        })
    });
    webhook.collect()
}

/// A notice of a message, on its way to an endpoint.
#[derive(Debug, Clone)]
pub struct Notice {
    pub message_id: Tsid,
    pub no: i16,
    pub event: String,
    /// The endpoint's id.
    pub recipient: String,
    pub status: Status,
    pub reason: Option<String>,
    pub ready_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
}

/// At most `rows` notices of a partner's message, oldest first.
pub async fn about(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid, rows: i64) -> Result<Vec<Notice>> {
    let found = sqlx::query_file!("sql/delivery/about.sql", partner_id.0, shard, message_id.0, rows);
    let notice = found.fetch_all(db).await?.into_iter().map(|r| {
        Ok(Notice {
            message_id: Tsid(r.message_id),
            no: r.no,
            event: r.kind,
            recipient: r.recipient,
            status: word(&r.status, "status")?,
            reason: r.reason,
            ready_at: r.ready_at,
            created_at: r.created_at,
        })
    });
    notice.collect()
}

/// The events of one message to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence {
    pub shard: i16,
    /// The message that they tell of.
    pub about: Tsid,
    /// The endpoint.
    pub recipient: String,
}

/// A webhook of a sequence that has not ended.
pub struct OpenWebhook {
    pub about: Tsid,
    pub recipient: String,
    /// Of the message that tells.
    pub message_id: Tsid,
}

/// How far the clocks of processes may be apart: a webhook's id may be older by so much than that of the message it tells of.
const CLOCKS_APART: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// Of each sequence the first webhooks that have not ended, in order, as many as are asked for; none behind `last`.
pub async fn sequences(db: impl Db<'_>, wanted: &[(Sequence, i64)], last: Tsid) -> Result<Vec<OpenWebhook>> {
    let rows = sqlx::query_file!(
        "sql/delivery/sequences.sql",
        &wanted.iter().map(|(s, _)| s.shard).collect::<Vec<_>>(),
        &wanted.iter().map(|(s, _)| s.about.0).collect::<Vec<_>>(),
        &wanted.iter().map(|(s, _)| s.recipient.clone()).collect::<Vec<_>>(),
        &wanted.iter().map(|(_, take)| *take).collect::<Vec<_>>(),
        Tsid::span(CLOCKS_APART),
        last.0,
    )
    .fetch_all(db)
    .await?;
    let row = rows.into_iter().map(|r| OpenWebhook {
        about: Tsid(r.about),
        recipient: r.recipient,
        message_id: Tsid(r.message_id),
    });
    Ok(row.collect())
}

/// Makes those PENDING that wait at the head of the sequences of these webhooks, of each at most as many as stand with it.
/// Returns where they wait now, one entry each.
pub async fn release_next(db: impl Db<'_>, ended: &[(Key, i64)], now: DateTime<Utc>) -> Result<Vec<(i16, Lane)>> {
    let ids: Vec<i64> = ended.iter().map(|(key, _)| key.message_id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/release_next.sql",
        &ended.iter().map(|(key, _)| key.shard).collect::<Vec<_>>(),
        &ids,
        &ended.iter().map(|(key, _)| key.no).collect::<Vec<_>>(),
        &ended.iter().map(|(_, take)| *take).collect::<Vec<_>>(),
        BEHIND,
        now,
        low,
        high,
        Status::Scheduled.as_str(),
        Tsid::span(CLOCKS_APART),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.shard, Lane(r.lane))).collect())
}

/// Behind which sequence a walk over all that are open goes on.
pub type SequencePosition = (i16, Tsid);

/// Of the next `rows` open webhooks those that wait behind nothing, and where to go on; none at the end.
pub async fn stalled(
    db: impl Db<'_>,
    behind: SequencePosition,
    rows: i64,
) -> Result<(Vec<Key>, Option<SequencePosition>)> {
    let found = sqlx::query_file!("sql/delivery/stalled.sql", behind.0, behind.1.0, rows, BEHIND).fetch_all(db).await?;
    let next = found.last().map(|r| (r.shard, Tsid(r.about)));
    let key = |shard, message_id, no| Key { shard, message_id: Tsid(message_id), no };
    Ok((found.iter().filter(|r| r.stalled).map(|r| key(r.shard, r.message_id, r.no)).collect(), next))
}

/// Adds the message that they tell of to open webhooks that have none, `rows` at most; returns to how many.
pub async fn fill_about(db: impl Db<'_>, shards: &[i16], rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/delivery/fill_about.sql", shards, rows).execute(db).await?.rows_affected())
}
