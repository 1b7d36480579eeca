//! Where the reading of providers' lists of results stands.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;

/// Takes the lease of a provider's list until that time; None: somebody else reads it, or it rests.
pub async fn take(
    db: impl Db<'_>,
    provider: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Option<Option<String>>> {
    let taken = sqlx::query_file_scalar!("sql/provider_cursor/take.sql", provider, now, until);
    Ok(taken.fetch_optional(db).await?)
}

/// Notes where it stands, and when its end was read, if that is it; false: somebody read on meanwhile.
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

/// Lets it rest until that time.
pub async fn rest(db: impl Db<'_>, provider: &str, until: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/provider_cursor/rest.sql", provider, until).execute(db).await?;
    Ok(())
}
