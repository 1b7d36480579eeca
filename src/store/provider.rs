//! What all processes know of providers: breakers, who paused them, what is booked of their limits, and when they were not
//! asked.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Conn, Db, word};
use crate::error::{Error, Result};
use crate::model::breaker::SharedProviderState;
use crate::model::lane::Lane;
use crate::model::limit::RateLimitUsage;

pub async fn states(db: impl Db<'_>) -> Result<Vec<(String, SharedProviderState)>> {
    let rows = sqlx::query_file!("sql/provider/states.sql").fetch_all(db).await?;
    let state = rows.into_iter().map(|r| {
        let state = SharedProviderState {
            paused_at: r.paused_at,
            paused_by: r.paused_by,
            breaker: word(&r.breaker, "breaker")?,
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

/// False when it is not as it was `seen` any more.
pub async fn put_state(
    db: impl Db<'_>,
    provider: &str,
    state: &SharedProviderState,
    seen: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query_file!(
        "sql/provider/put_state.sql",
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

/// What is booked of a provider's limit, held until the transaction ends.
pub async fn lock_limit(tx: &mut Conn, provider: &str, now: DateTime<Utc>) -> Result<RateLimitUsage> {
    let locked = sqlx::query_file_scalar!("sql/provider/lock_limit.sql", provider).fetch_optional(&mut *tx).await?;
    if let Some(state) = locked {
        return booked(state);
    }
    sqlx::query_file!("sql/provider/make_limit.sql", provider, now).execute(&mut *tx).await?;
    booked(sqlx::query_file_scalar!("sql/provider/lock_limit.sql", provider).fetch_one(tx).await?)
}

pub async fn put_limit(db: impl Db<'_>, provider: &str, booked: &RateLimitUsage, now: DateTime<Utc>) -> Result<()> {
    let state = serde_json::to_value(booked).map_err(|e| Error::Internal(format!("a limit cannot be written: {e}")))?;
    sqlx::query_file!("sql/provider/put_limit.sql", provider, state, now).execute(db).await?;
    Ok(())
}

pub async fn limits(db: impl Db<'_>) -> Result<Vec<(String, RateLimitUsage)>> {
    let rows = sqlx::query_file!("sql/provider/limits.sql").fetch_all(db).await?;
    rows.into_iter().map(|r| Ok((r.provider, booked(r.state)?))).collect()
}

fn booked(state: Value) -> Result<RateLimitUsage> {
    serde_json::from_value(state).map_err(|e| Error::Internal(format!("what is booked of a limit cannot be read: {e}")))
}

/// A span in which a provider was not asked.
#[derive(Debug, Clone)]
pub struct ProviderOutage {
    pub provider: String,
    /// limited, breaker, paused.
    pub reason: String,
    pub began_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub detail: Option<String>,
}

/// `followed`: one that ended at this time or later is made longer instead.
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

pub async fn end_outage(db: impl Db<'_>, provider: &str, reason: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/provider/end_outage.sql", provider, reason, now).execute(db).await?;
    Ok(())
}

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

pub async fn forget_outages(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/provider/forget_outages.sql", before).execute(db).await?;
    Ok(())
}

/// How many deliveries workers hold, by lane.
pub async fn held(db: impl Db<'_>, shards: &[i16]) -> Result<Vec<(Lane, i64)>> {
    let rows = sqlx::query_file!("sql/provider/held.sql", shards).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (Lane(r.lane), r.held)).collect())
}
