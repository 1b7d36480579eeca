//! What services enqueued in SQL: requests that wait to become messages, and those that could not.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::Db;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;

/// A request that waits.
#[derive(Debug)]
pub struct Request {
    pub request_id: i64,
    pub partner_id: Tsid,
    /// The message as JSON.
    pub body: String,
    /// Since it was enqueued.
    pub waited: TimeDelta,
}

/// Makes what `take` locks, for partners that have requests for the first time. Outside any transaction.
pub async fn make_turns(db: impl Db<'_>) -> Result<()> {
    sqlx::query_file!("sql/sql_intake/make_turns.sql").execute(db).await?;
    Ok(())
}

/// Locks at most so many requests for this transaction, of partners after `after` that are not passed over.
pub async fn take(db: impl Db<'_>, after: Tsid, passed_over: &[Tsid], requests: i64) -> Result<Vec<Request>> {
    let passed_over: Vec<i64> = passed_over.iter().map(|p| p.0).collect();
    let bytes = i64::try_from(limits::BATCH_BYTES).unwrap_or(i64::MAX);
    let partners = limits::RELAY_PARTNERS;
    let rows = sqlx::query_file!("sql/sql_intake/take.sql", after.0, &passed_over, partners, requests, bytes);
    Ok(rows
        .fetch_all(db)
        .await?
        .into_iter()
        .map(|r| Request {
            request_id: r.request_id,
            partner_id: Tsid(r.partner_id),
            body: r.body,
            // A clock that was set back makes it negative: then it came just now. Milliseconds fit for ages.
            waited: TimeDelta::milliseconds((r.waited_s.max(0.0) * 1000.0) as i64),
        })
        .collect())
}

/// Deletes requests that are messages now; says how many.
pub async fn done(db: impl Db<'_>, requests: &[i64]) -> Result<u64> {
    Ok(sqlx::query_file!("sql/sql_intake/done.sql", requests).execute(db).await?.rows_affected())
}

/// One thing wrong at one place of a request's body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wrong {
    pub pointer: String,
    pub reason: String,
    pub detail: String,
}

/// Why a request is refused.
#[derive(Debug)]
pub struct Refuse {
    pub request_id: i64,
    pub code: &'static str,
    pub reason: &'static str,
    pub detail: String,
    pub errors: Vec<Wrong>,
}

/// Keeps them as refused; returns each with the key its sender gave it, as far as that can be read.
pub async fn refuse(db: impl Db<'_>, refused: &[Refuse], now: DateTime<Utc>) -> Result<HashMap<i64, Option<String>>> {
    let errors: Vec<String> = refused
        .iter()
        .map(|r| serde_json::to_string(&r.errors))
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Internal(format!("faults do not serialise: {e}")))?;
    let kept = sqlx::query_file!(
        "sql/sql_intake/refuse.sql",
        &refused.iter().map(|r| r.request_id).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.code.to_owned()).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.reason.to_owned()).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.detail.clone()).collect::<Vec<_>>(),
        &errors,
        now,
    );
    Ok(kept.fetch_all(db).await?.into_iter().map(|r| (r.request_id, r.client_msg_id)).collect())
}

/// A request that was refused.
#[derive(Debug)]
pub struct Refused {
    pub partner_id: Tsid,
    pub request_id: i64,
    pub client_msg_id: Option<String>,
    pub enqueued_at: DateTime<Utc>,
    pub refused_at: DateTime<Utc>,
    pub code: String,
    pub reason: String,
    pub detail: String,
    pub errors: Vec<Wrong>,
}

/// Refused requests of these partners below an id, refused in a window of time; the newest first.
pub async fn refused(
    db: impl Db<'_>,
    owners: &[(Tsid, i16)],
    below: i64,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
    rows: i64,
) -> Result<Vec<Refused>> {
    let owners: Vec<i64> = owners.iter().map(|o| o.0.0).collect();
    let found = sqlx::query_file!("sql/sql_intake/refused.sql", &owners, below, from, until, rows);
    Ok(found
        .fetch_all(db)
        .await?
        .into_iter()
        .map(|r| Refused {
            partner_id: Tsid(r.partner_id),
            request_id: r.request_id,
            client_msg_id: r.client_msg_id,
            enqueued_at: r.enqueued_at,
            refused_at: r.refused_at,
            code: r.code,
            reason: r.reason,
            detail: r.detail,
            errors: r.errors.0,
        })
        .collect())
}

/// Forgets what was refused more than so many days ago, or its partner's own retention, at most `rows`; says how many.
pub async fn forget(db: impl Db<'_>, now: DateTime<Utc>, days: i32, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/sql_intake/forget.sql", now, days, rows).execute(db).await?.rows_affected())
}

/// A database role that may enqueue for a partner.
#[derive(Debug)]
pub struct Grant {
    pub role_name: String,
    pub partner_id: i64,
    pub partner: String,
    /// It could enqueue before roles were tied to partners; no admin has confirmed it.
    pub carried_over: bool,
    pub granted_at: DateTime<Utc>,
}

/// Lets a role enqueue for a partner, or confirms that it may.
pub async fn grant(db: impl Db<'_>, role: &str, partner_id: Tsid, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/sql_intake/grant.sql", role, partner_id.0, now).execute(db).await?;
    Ok(())
}

/// Ends a role's grants for one partner or all; with `carried_over` only those that no admin confirmed. Returns how many.
pub async fn revoke(db: impl Db<'_>, role: &str, partner_id: Option<Tsid>, carried_over: bool) -> Result<u64> {
    let done = sqlx::query_file!("sql/sql_intake/revoke.sql", role, partner_id.map(|id| id.0), carried_over);
    Ok(done.execute(db).await?.rows_affected())
}

/// Who may enqueue for a partner; none: for every partner.
pub async fn grants(db: impl Db<'_>, partner_id: Option<Tsid>) -> Result<Vec<Grant>> {
    let rows = sqlx::query_file_as!(Grant, "sql/sql_intake/grants.sql", partner_id.map(|id| id.0));
    Ok(rows.fetch_all(db).await?)
}

/// Whether a database role may call `notihub.enqueue` at all; none when there is no such role.
pub async fn may_call(db: impl Db<'_>, role: &str) -> Result<Option<bool>> {
    Ok(sqlx::query_file_scalar!("sql/sql_intake/may_call.sql", role).fetch_one(db).await?)
}

/// How much waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Counted up to the limit that was asked for.
    pub requests: i64,
    /// Of the oldest; nothing when nothing waits.
    pub oldest: TimeDelta,
}

pub async fn waiting(db: impl Db<'_>, count_up_to: i64) -> Result<Waiting> {
    let row = sqlx::query_file!("sql/sql_intake/waiting.sql", count_up_to).fetch_one(db).await?;
    Ok(Waiting { requests: row.requests, oldest: TimeDelta::seconds(row.oldest_s.max(0)) })
}
