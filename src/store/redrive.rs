//! Redrives: dead letters that are tried again, and the jobs that do it in bulk.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::keys::key;
use super::{Conn, Db, parse_word};
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::model::redrive::{JobFilter, RedriveKind, RedriveStatus};

/// A delivery with what decides whether it can be redriven.
#[derive(Debug, Clone)]
pub struct RedriveCandidate {
    pub key: DeliveryKey,
    pub partner_id: Tsid,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    /// Number of its last event; with the status it is the fence of `delivery::redrive`.
    pub event_seq: i16,
    /// Index of its content in the message.
    pub content: i16,
    /// The time under which the statistics count it.
    pub settled_at: Option<DateTime<Utc>>,
    pub recipient: String,
    /// A fallback replaced it.
    pub replaced: bool,
}

macro_rules! candidate {
    ($r:expr, $partner:expr, $shard:expr) => {
        RedriveCandidate {
            key: key($shard, $r.message_id, $r.no),
            partner_id: $partner,
            lane: Lane($r.lane),
            status: parse_word(&$r.status, "status")?,
            attempt: $r.attempt,
            event_seq: $r.event_seq,
            content: $r.content,
            settled_at: $r.settled_at,
            recipient: $r.recipient,
            replaced: $r.replaced,
        }
    };
}

/// A delivery of a partner's message. None if it does not exist or is another partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn get_candidate(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    no: i16,
) -> Result<Option<RedriveCandidate>> {
    let row = sqlx::query_file!("sql/redrive/get_candidate.sql", partner_id.0, shard, message_id.0, no)
        .fetch_optional(db)
        .await?;
    row.map(|r| Ok(candidate!(r, partner_id, shard))).transpose()
}

/// Position in a walk by (message id, delivery number): continue after it.
pub type DeliveryPosition = (Tsid, i16);

/// Which dead letters a walk returns; None does not filter.
#[derive(Debug, Clone)]
pub struct DeadLetterFilter {
    /// First and last lane of a channel.
    pub lanes: Option<(i16, i16)>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    pub recipient: Option<String>,
    /// Settled at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Settled before this time.
    pub until: DateTime<Utc>,
}

/// A slice of a walk over a partner's dead letters.
pub struct DeadLetterSlice {
    /// Those that pass the filter.
    pub found: Vec<RedriveCandidate>,
    /// The last one read, to continue after it; None at the end.
    pub next: Option<DeliveryPosition>,
}

/// Reads the next `look` of a partner's dead letters with this status, by id, and returns those that pass the filter.
/// Bounded by rows read, not by rows found. Locks nothing: the fence of `delivery::redrive` detects changes.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn list_dead_letters(
    db: impl Db<'_>,
    (partner_id, shard): (Tsid, i16),
    status: Status,
    behind: DeliveryPosition,
    wanted: &DeadLetterFilter,
    look: i64,
) -> Result<DeadLetterSlice> {
    let rows = sqlx::query_file!(
        "sql/redrive/list_dead_letters.sql",
        partner_id.0,
        shard,
        status.as_str(),
        behind.0.0,
        behind.1,
        look,
        wanted.lanes.map(|l| l.0),
        wanted.lanes.map(|l| l.1),
        wanted.provider,
        wanted.reason,
        wanted.recipient,
        wanted.since,
        wanted.until,
    )
    .fetch_all(db)
    .await?;
    let next = rows.last().filter(|r| r.position >= look).map(|r| (Tsid(r.message_id), r.no));
    let found =
        rows.into_iter().filter(|r| r.matches).map(|r| Ok(candidate!(r, partner_id, shard))).collect::<Result<_>>()?;
    Ok(DeadLetterSlice { found, next })
}

/// A job that redrives or replays in bulk.
#[derive(Debug, Clone)]
pub struct RedriveJob {
    pub redrive_id: Tsid,
    pub kind: RedriveKind,
    /// None: all partners.
    pub partner_id: Option<Tsid>,
    pub endpoint_id: Option<Tsid>,
    pub filter: JobFilter,
    pub rate_per_second: i32,
    pub status: RedriveStatus,
    /// Number of deliveries when it began, if they could be counted to the end.
    pub expected: Option<i64>,
    /// Number done so far.
    pub done: i64,
    /// Where it stands; the flow defines the form.
    pub position: Option<Value>,
    pub requested_by: String,
    pub created_at: DateTime<Utc>,
    /// Until when its rate is used up.
    pub stepped_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

macro_rules! job {
    ($r:expr) => {{
        let r = $r;
        let unreadable =
            |e| Error::Internal(format!("redrive {}: unknown filter ({e}) in the database", Tsid(r.redrive_id)));
        Ok(RedriveJob {
            redrive_id: Tsid(r.redrive_id),
            kind: parse_word(&r.kind, "kind of redrive")?,
            partner_id: r.partner_id.map(Tsid),
            endpoint_id: r.endpoint_id.map(Tsid),
            filter: serde_json::from_value(r.filter).map_err(unreadable)?,
            rate_per_second: r.rate_per_second,
            status: parse_word(&r.status, "status of a redrive")?,
            expected: r.expected,
            done: r.done,
            position: r.position,
            requested_by: r.requested_by,
            created_at: r.created_at,
            stepped_at: r.stepped_at,
            finished_at: r.finished_at,
        })
    }};
}

/// Inserts a job. False if it is a partner's own and the partner has as many running as allowed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, job: &RedriveJob) -> Result<bool> {
    let filter =
        serde_json::to_value(&job.filter).map_err(|e| Error::Internal(format!("a filter does not serialise: {e}")))?;
    let done = sqlx::query_file!(
        "sql/redrive/insert.sql",
        job.redrive_id.0,
        job.kind.as_str(),
        job.partner_id.map(|id| id.0),
        job.endpoint_id.map(|id| id.0),
        filter,
        job.rate_per_second,
        job.expected,
        job.requested_by,
        job.created_at,
        limits::REDRIVES_AT_ONCE,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Locks the running job that has waited longest, among those whose rate allows a step worth `least` of time by now.
/// The lock lasts until the transaction ends. None if there is none.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored word that this program does not know.
pub async fn lock_next_job(tx: &mut Conn, now: DateTime<Utc>, least: TimeDelta) -> Result<Option<RedriveJob>> {
    let least = least.as_seconds_f64();
    let row = sqlx::query_file!("sql/redrive/lock_next_job.sql", now, least).fetch_optional(tx).await?;
    row.map(|r| job!(r)).transpose()
}

/// Records a step of a job: its position, `did` more done, and until when its rate is used up. With `finished_at` the
/// job is DONE.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_step(
    tx: &mut Conn,
    redrive_id: Tsid,
    position: Option<&Value>,
    did: i64,
    stepped_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query_file!("sql/redrive/record_step.sql", redrive_id.0, position, did, stepped_at, finished_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// A job; with `partner_id` only if it is that partner's own.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn get(db: impl Db<'_>, redrive_id: Tsid, partner_id: Option<Tsid>) -> Result<Option<RedriveJob>> {
    let row =
        sqlx::query_file!("sql/redrive/get.sql", redrive_id.0, partner_id.map(|id| id.0)).fetch_optional(db).await?;
    row.map(|r| job!(r)).transpose()
}

/// Up to `rows` jobs of one partner or all, with ids below `below` and from `from` on, newest first. `own` leaves out
/// jobs of operators.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn list(
    db: impl Db<'_>,
    partner_id: Option<Tsid>,
    own: bool,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<RedriveJob>> {
    let found = sqlx::query_file!("sql/redrive/list.sql", partner_id.map(|id| id.0), own, below.0, from.0, rows);
    found.fetch_all(db).await?.into_iter().map(|r| job!(r)).collect()
}

/// Cancels a job. False if it is not running.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn cancel(db: impl Db<'_>, redrive_id: Tsid, now: DateTime<Utc>) -> Result<bool> {
    let done = sqlx::query_file!("sql/redrive/cancel.sql", redrive_id.0, now).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes jobs that finished before `before`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_finished(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/redrive/delete_finished.sql", before).execute(db).await?;
    Ok(())
}
