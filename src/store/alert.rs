//! Alerts: causes that operators are notified of, once when a cause appears and once when it is over.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{Conn, Db};
use crate::error::Result;
use crate::model::alert::ALERT_KINDS;

/// Sightings of a cause since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedCause {
    /// The cause's key, as `model::alert::Cause` writes it.
    pub cause: String,
    /// Number of sightings.
    pub times: u64,
    /// Text for operators, of the latest sighting.
    pub detail: String,
}

/// Records sightings; `seen` holds each cause once. Returns the keys of causes that had no open alert: operators have
/// to be notified of those.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn raise(conn: &mut Conn, seen: &[ObservedCause], now: DateTime<Utc>) -> Result<BTreeSet<String>> {
    let rows = sqlx::query_file!(
        "sql/alert/raise.sql",
        &seen.iter().map(|s| s.cause.clone()).collect::<Vec<_>>(),
        &seen.iter().map(|s| i64::try_from(s.times).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
        &seen.iter().map(|s| s.detail.clone()).collect::<Vec<_>>(),
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter(|r| r.is_new).map(|r| r.cause).collect())
}

/// An alert that is over.
#[derive(Debug, Clone)]
pub struct Alert {
    pub cause: String,
    pub opened_at: DateTime<Utc>,
    /// Number of sightings while it was open.
    pub times: i64,
    pub detail: String,
}

/// Closes and returns alerts whose cause was not seen for longer than its kind allows (`model::alert::KINDS`).
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn clear(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<Alert>> {
    let kinds: Vec<String> = ALERT_KINDS.iter().map(|k| k.0.to_owned()).collect();
    let quiet: Vec<f64> = ALERT_KINDS.iter().map(|k| k.1.as_secs_f64()).collect();
    let rows = sqlx::query_file!("sql/alert/clear.sql", &kinds, &quiet, now).fetch_all(conn).await?.into_iter();
    let alert = rows.map(|r| Alert { cause: r.cause, opened_at: r.opened_at, times: r.times, detail: r.detail });
    Ok(alert.collect())
}

/// Deletes alerts that were closed before `before`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_cleared(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/alert/delete_cleared.sql", before).execute(db).await?;
    Ok(())
}
