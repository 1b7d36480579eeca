//! Failed sign-ins of clients, counted over all processes.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::model::access::sign_in_throttle::{Failures, PERIOD};

/// Counts a failed sign-in of an existing client in a network. Returns the count of the current period.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn add(db: impl Db<'_>, client_id: &str, network: &str, now: DateTime<Utc>) -> Result<Failures> {
    let row = sqlx::query_file!("sql/sign_in_failure/add.sql", client_id, network, now, now - PERIOD);
    let row = row.fetch_one(db).await?;
    Ok(Failures { since: row.since, count: u32::try_from(row.failures).unwrap_or(0) })
}

/// Deletes up to `rows` counts of periods that began at `since` or before. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old(db: impl Db<'_>, since: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/sign_in_failure/delete_old.sql", since, rows).execute(db).await?.rows_affected())
}
