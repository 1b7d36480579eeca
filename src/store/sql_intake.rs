//! SQL intake: requests that services enqueued with `notihub.enqueue`, and refused ones.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::Db;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;

/// A request that waits to become a message.
#[derive(Debug)]
pub struct EnqueuedRequest {
    pub request_id: i64,
    pub partner_id: Tsid,
    /// The message as JSON.
    pub body: String,
    /// Time since it was enqueued, by the database's clock.
    pub waited: TimeDelta,
}

/// Creates the rows that `lock_requests` locks, for partners that have requests for the first time. Call it outside any
/// transaction, so that no other relay waits for uncommitted rows.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn ensure_turn_locks(db: impl Db<'_>) -> Result<()> {
    sqlx::query_file!("sql/sql_intake/ensure_turn_locks.sql").execute(db).await?;
    Ok(())
}

/// Locks up to `requests` requests of partners with ids above `after` that are not in `passed_over`, an equal share for
/// each partner, oldest first, up to `limits::BATCH_BYTES`. Partners locked by another relay are skipped. The locks
/// last until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_requests(
    db: impl Db<'_>,
    after: Tsid,
    passed_over: &[Tsid],
    requests: i64,
) -> Result<Vec<EnqueuedRequest>> {
    let passed_over: Vec<i64> = passed_over.iter().map(|p| p.0).collect();
    let bytes = i64::try_from(limits::BATCH_BYTES).unwrap_or(i64::MAX);
    let partners = limits::RELAY_PARTNERS;
    let rows = sqlx::query_file!("sql/sql_intake/lock_requests.sql", after.0, &passed_over, partners, requests, bytes);
    Ok(rows
        .fetch_all(db)
        .await?
        .into_iter()
        .map(|r| EnqueuedRequest {
            request_id: r.request_id,
            partner_id: Tsid(r.partner_id),
            body: r.body,
            // Negative after the clock was set back: counts as 0. Milliseconds fit for ages.
            waited: TimeDelta::milliseconds((r.waited_s.max(0.0) * 1000.0) as i64),
        })
        .collect())
}

/// Deletes requests that became messages in the same transaction. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_relayed(db: impl Db<'_>, requests: &[i64]) -> Result<u64> {
    Ok(sqlx::query_file!("sql/sql_intake/delete_relayed.sql", requests).execute(db).await?.rows_affected())
}

/// A fault at one place of a request's body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestFault {
    /// JSON pointer.
    pub pointer: String,
    /// Stable word.
    pub reason: String,
    pub detail: String,
}

/// A request to refuse, with the reason.
#[derive(Debug)]
pub struct NewRefusal {
    pub request_id: i64,
    pub code: &'static str,
    pub reason: &'static str,
    pub detail: String,
    pub errors: Vec<RequestFault>,
}

/// Moves requests into the refusals. Returns the `clientMsgId` of each by request id, as far as it can be read.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn refuse(
    db: impl Db<'_>,
    refused: &[NewRefusal],
    now: DateTime<Utc>,
) -> Result<HashMap<i64, Option<String>>> {
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
pub struct RefusalRow {
    pub partner_id: Tsid,
    pub request_id: i64,
    pub client_msg_id: Option<String>,
    pub enqueued_at: DateTime<Utc>,
    pub refused_at: DateTime<Utc>,
    pub code: String,
    pub reason: String,
    pub detail: String,
    pub errors: Vec<RequestFault>,
}

/// Up to `rows` refused requests of these partners with ids below `below`, refused from `from` up to, not including,
/// `until`, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list_refused(
    db: impl Db<'_>,
    owners: &[(Tsid, i16)],
    below: i64,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
    rows: i64,
) -> Result<Vec<RefusalRow>> {
    let owners: Vec<i64> = owners.iter().map(|o| o.0.0).collect();
    let found = sqlx::query_file!("sql/sql_intake/list_refused.sql", &owners, below, from, until, rows);
    Ok(found
        .fetch_all(db)
        .await?
        .into_iter()
        .map(|r| RefusalRow {
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

/// Deletes up to `rows` refusals older than `days`, or than the partner's own content retention. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old_refusals(db: impl Db<'_>, now: DateTime<Utc>, days: i32, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/sql_intake/delete_old_refusals.sql", now, days, rows).execute(db).await?.rows_affected())
}

/// A database role that may enqueue for a partner.
#[derive(Debug)]
pub struct EnqueueGrant {
    pub role_name: String,
    pub partner_id: i64,
    /// The partner's name.
    pub partner: String,
    /// It could enqueue before roles were tied to partners, and no admin has confirmed it.
    pub carried_over: bool,
    pub granted_at: DateTime<Utc>,
}

/// Allows a role to enqueue for a partner, and confirms a grant that was carried over.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn grant(db: impl Db<'_>, role: &str, partner_id: Tsid, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/sql_intake/grant.sql", role, partner_id.0, now).execute(db).await?;
    Ok(())
}

/// Revokes a role's grants for one partner or all; with `carried_over` only those that no admin has confirmed. Returns
/// how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn revoke(db: impl Db<'_>, role: &str, partner_id: Option<Tsid>, carried_over: bool) -> Result<u64> {
    let done = sqlx::query_file!("sql/sql_intake/revoke.sql", role, partner_id.map(|id| id.0), carried_over);
    Ok(done.execute(db).await?.rows_affected())
}

/// Grants to enqueue for a partner; None: for every partner. By role and partner name.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn grants(db: impl Db<'_>, partner_id: Option<Tsid>) -> Result<Vec<EnqueueGrant>> {
    let rows = sqlx::query_file_as!(EnqueueGrant, "sql/sql_intake/grants.sql", partner_id.map(|id| id.0));
    Ok(rows.fetch_all(db).await?)
}

/// Whether a database role may call `notihub.enqueue` at all; None if there is no such role.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn may_enqueue(db: impl Db<'_>, role: &str) -> Result<Option<bool>> {
    Ok(sqlx::query_file_scalar!("sql/sql_intake/may_enqueue.sql", role).fetch_one(db).await?)
}

/// Requests that wait.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Counted up to the limit given.
    pub requests: i64,
    /// Age of the oldest; zero if none waits.
    pub oldest: TimeDelta,
}

/// Number of waiting requests, counted up to `count_up_to`, and the age of the oldest.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn backlog(db: impl Db<'_>, count_up_to: i64) -> Result<Backlog> {
    let row = sqlx::query_file!("sql/sql_intake/backlog.sql", count_up_to).fetch_one(db).await?;
    Ok(Backlog { requests: row.requests, oldest: TimeDelta::seconds(row.oldest_s.max(0)) })
}
