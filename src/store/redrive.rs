//! Dead letters that somebody wants tried again, and the jobs that do it for many.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::keys::key;
use super::{Conn, Db, word};
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::Lane;
use crate::model::redrive::{JobFilter, RedriveKind, RedriveStatus};

/// A delivery, dead or not, as the law of redriving sees it.
#[derive(Debug, Clone)]
pub struct Dead {
    pub key: DeliveryKey,
    pub partner_id: Tsid,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    /// The number of its last event: with the status the fence.
    pub event_seq: i16,
    pub content: i16,
    /// The statistics count it on this day.
    pub settled_at: Option<DateTime<Utc>>,
    pub recipient: String,
    /// Another delivery took its place.
    pub replaced: bool,
}

macro_rules! dead {
    ($r:expr, $partner:expr, $shard:expr) => {
        Dead {
            key: key($shard, $r.message_id, $r.no),
            partner_id: $partner,
            lane: Lane($r.lane),
            status: word(&$r.status, "status")?,
            attempt: $r.attempt,
            event_seq: $r.event_seq,
            content: $r.content,
            settled_at: $r.settled_at,
            recipient: $r.recipient,
            replaced: $r.replaced,
        }
    };
}

pub async fn dead(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid, no: i16) -> Result<Option<Dead>> {
    let row =
        sqlx::query_file!("sql/redrive/dead.sql", partner_id.0, shard, message_id.0, no).fetch_optional(db).await?;
    row.map(|r| Ok(dead!(r, partner_id, shard))).transpose()
}

/// Where a walk stands: behind this delivery.
pub type Behind = (Tsid, i16);

/// Which dead letters to walk to, in the words of the books.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// First and last lane of a channel.
    pub lanes: Option<(i16, i16)>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    pub recipient: Option<String>,
    pub since: Option<DateTime<Utc>>,
    pub until: DateTime<Utc>,
}

/// Some of a partner's dead letters.
pub struct Walked {
    /// Those that match.
    pub found: Vec<Dead>,
    /// The last one looked at; none at the end.
    pub next: Option<Behind>,
}

/// Looks at the next `look` of a partner's dead letters with this status.
pub async fn walk(
    db: impl Db<'_>,
    (partner_id, shard): (Tsid, i16),
    status: Status,
    behind: Behind,
    wanted: &Wanted,
    look: i64,
) -> Result<Walked> {
    let rows = sqlx::query_file!(
        "sql/redrive/walk.sql",
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
        rows.into_iter().filter(|r| r.matches).map(|r| Ok(dead!(r, partner_id, shard))).collect::<Result<_>>()?;
    Ok(Walked { found, next })
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    pub redrive_id: Tsid,
    pub kind: RedriveKind,
    /// None: all partners.
    pub partner_id: Option<Tsid>,
    pub endpoint_id: Option<Tsid>,
    pub filter: JobFilter,
    pub rate_per_second: i32,
    pub status: RedriveStatus,
    /// How many there were when it began, where they were counted to the end.
    pub expected: Option<i64>,
    pub done: i64,
    /// Its form is the flow's.
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
        Ok(Job {
            redrive_id: Tsid(r.redrive_id),
            kind: word(&r.kind, "kind of redrive")?,
            partner_id: r.partner_id.map(Tsid),
            endpoint_id: r.endpoint_id.map(Tsid),
            filter: serde_json::from_value(r.filter).map_err(unreadable)?,
            rate_per_second: r.rate_per_second,
            status: word(&r.status, "status of a redrive")?,
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

/// False when its partner has as many running as it may.
pub async fn insert(db: impl Db<'_>, job: &Job) -> Result<bool> {
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

/// The job whose turn it is, held until the transaction ends. `least`: what a step is worth at least.
pub async fn take(tx: &mut Conn, now: DateTime<Utc>, least: TimeDelta) -> Result<Option<Job>> {
    let least = least.as_seconds_f64();
    let row = sqlx::query_file!("sql/redrive/take.sql", now, least).fetch_optional(tx).await?;
    row.map(|r| job!(r)).transpose()
}

/// Notes what a step did.
pub async fn stepped(
    tx: &mut Conn,
    redrive_id: Tsid,
    position: Option<&Value>,
    did: i64,
    stepped_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query_file!("sql/redrive/stepped.sql", redrive_id.0, position, did, stepped_at, finished_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// A job; for a partner only its own.
pub async fn get(db: impl Db<'_>, redrive_id: Tsid, partner_id: Option<Tsid>) -> Result<Option<Job>> {
    let row =
        sqlx::query_file!("sql/redrive/get.sql", redrive_id.0, partner_id.map(|id| id.0)).fetch_optional(db).await?;
    row.map(|r| job!(r)).transpose()
}

/// Jobs of one partner, or all, with ids below one and from another on. `own`: without those of operators.
pub async fn list(
    db: impl Db<'_>,
    partner_id: Option<Tsid>,
    own: bool,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<Job>> {
    let found = sqlx::query_file!("sql/redrive/list.sql", partner_id.map(|id| id.0), own, below.0, from.0, rows);
    found.fetch_all(db).await?.into_iter().map(|r| job!(r)).collect()
}

/// False when it does not run any more.
pub async fn cancel(db: impl Db<'_>, redrive_id: Tsid, now: DateTime<Utc>) -> Result<bool> {
    let done = sqlx::query_file!("sql/redrive/cancel.sql", redrive_id.0, now).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets jobs that were finished before then.
pub async fn forget(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/redrive/forget.sql", before).execute(db).await?;
    Ok(())
}
