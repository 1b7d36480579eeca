//! State of providers shared by all processes: breakers, pauses, booked requests of limits, and outages.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Conn, Db, parse_word};
use crate::error::{Error, Result};
use crate::model::breaker::SharedProviderState;
use crate::model::lane::Lane;
use crate::model::limit::RateLimitUsage;

/// State of every provider that was ever paused or failed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn states(db: impl Db<'_>) -> Result<Vec<(String, SharedProviderState)>> {
    let rows = sqlx::query_file!("sql/provider/states.sql").fetch_all(db).await?;
    let state = rows.into_iter().map(|r| {
        let state = SharedProviderState {
            paused_at: r.paused_at,
            paused_by: r.paused_by,
            breaker: parse_word(&r.breaker, "breaker")?,
            reason: r.reason,
            opened_at: r.opened_at,
            open_until: r.open_until,
            openings: r.openings,
            good_probes: r.probes,
            probe_until: r.probe_until,
            changed_at: r.changed_at,
        };
        Ok((r.provider, state))
    });
    state.collect()
}

/// Writes a provider's state if the stored one was changed last at `seen`, or if there is none. False otherwise.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn compare_and_set_state(
    db: impl Db<'_>,
    provider: &str,
    state: &SharedProviderState,
    seen: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query_file!(
        "sql/provider/compare_and_set_state.sql",
        provider,
        state.paused_at,
        state.paused_by,
        state.breaker.as_str(),
        state.reason,
        state.opened_at,
        state.open_until,
        state.openings,
        state.good_probes,
        state.probe_until,
        state.changed_at,
        seen,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Locks a provider's limit until the transaction ends and returns its booked requests. Creates the row if there is
/// none.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored state that cannot be read.
pub async fn lock_limit(tx: &mut Conn, provider: &str, now: DateTime<Utc>) -> Result<RateLimitUsage> {
    let locked = sqlx::query_file_scalar!("sql/provider/lock_limit.sql", provider).fetch_optional(&mut *tx).await?;
    if let Some(state) = locked {
        return booked(state);
    }
    sqlx::query_file!("sql/provider/make_limit.sql", provider, now).execute(&mut *tx).await?;
    booked(sqlx::query_file_scalar!("sql/provider/lock_limit.sql", provider).fetch_one(tx).await?)
}

/// Replaces the booked requests of a provider's limit, which the caller has locked.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update_limit(db: impl Db<'_>, provider: &str, booked: &RateLimitUsage, now: DateTime<Utc>) -> Result<()> {
    let state = serde_json::to_value(booked).map_err(|e| Error::Internal(format!("a limit cannot be written: {e}")))?;
    sqlx::query_file!("sql/provider/update_limit.sql", provider, state, now).execute(db).await?;
    Ok(())
}

/// Booked requests of every provider's limit.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// state that cannot be read.
pub async fn limits(db: impl Db<'_>) -> Result<Vec<(String, RateLimitUsage)>> {
    let rows = sqlx::query_file!("sql/provider/limits.sql").fetch_all(db).await?;
    rows.into_iter().map(|r| Ok((r.provider, booked(r.state)?))).collect()
}

fn booked(state: Value) -> Result<RateLimitUsage> {
    serde_json::from_value(state).map_err(|e| Error::Internal(format!("what is booked of a limit cannot be read: {e}")))
}

/// A period in which a provider is not called.
#[derive(Debug, Clone)]
pub struct ProviderOutage {
    pub provider: String,
    /// 'limited', 'breaker' or 'paused'.
    pub reason: String,
    pub began_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub detail: Option<String>,
}

/// Records an outage. One with the same provider and reason that ended at `followed` or later is extended instead.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn begin_outage(db: impl Db<'_>, outage: &ProviderOutage, followed: DateTime<Utc>) -> Result<()> {
    let ProviderOutage { provider, reason, began_at, ended_at, detail } = outage;
    sqlx::query_file!(
        "sql/provider/begin_outage.sql",
        provider,
        reason,
        began_at,
        ended_at,
        detail.as_deref(),
        followed
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends outages of a provider with this reason that would last longer than `now`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn end_outage(db: impl Db<'_>, provider: &str, reason: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/provider/end_outage.sql", provider, reason, now).execute(db).await?;
    Ok(())
}

/// Up to `rows` outages of these providers between `from` and `until`, oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn outages(
    db: impl Db<'_>,
    providers: &[String],
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    rows: i64,
) -> Result<Vec<ProviderOutage>> {
    let found = sqlx::query_file!("sql/provider/outages.sql", providers, from, until, rows).fetch_all(db).await?;
    let outages = found.into_iter().map(|r| ProviderOutage {
        provider: r.provider,
        reason: r.reason,
        began_at: r.began_at,
        ended_at: r.ended_at,
        detail: r.detail,
    });
    Ok(outages.collect())
}

/// Deletes outages that ended before `before`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old_outages(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/provider/delete_old_outages.sql", before).execute(db).await?;
    Ok(())
}

/// Number of PROCESSING deliveries of these shards, by lane.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_processing(db: impl Db<'_>, shards: &[i16]) -> Result<Vec<(Lane, i64)>> {
    let rows = sqlx::query_file!("sql/provider/count_processing.sql", shards).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (Lane(r.lane), r.processing)).collect())
}
