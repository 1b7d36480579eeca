//! Cursors into providers' lists of results, which are polled for receipts.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;

/// Leases the polling of a provider's list to this process until `until`. Returns the cursor (None at the beginning),
/// or None if another process holds the lease or the poll is postponed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn lease(
    db: impl Db<'_>,
    provider: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Option<Option<String>>> {
    let taken = sqlx::query_file_scalar!("sql/provider_cursor/lease.sql", provider, now, until);
    Ok(taken.fetch_optional(db).await?)
}

/// Saves the cursor `is` if it is still `was`. `end`: when the list's end was reached, if it was. `next`: when the list
/// may be polled again. False if another process read on meanwhile.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn save(
    db: impl Db<'_>,
    provider: &str,
    (was, is): (Option<&str>, &str),
    end: Option<DateTime<Utc>>,
    next: DateTime<Utc>,
) -> Result<bool> {
    let query = sqlx::query_file!("sql/provider_cursor/save.sql", provider, was, is, end, next);
    Ok(query.execute(db).await?.rows_affected() == 1)
}

/// Postpones the next poll of a provider's list until `until`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn postpone(db: impl Db<'_>, provider: &str, until: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/provider_cursor/postpone.sql", provider, until).execute(db).await?;
    Ok(())
}
