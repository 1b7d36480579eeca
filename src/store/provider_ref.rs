//! Providers' own ids of what they accepted, for providers whose receipts do not repeat our reference.

use super::Db;
use super::keys::KeyColumns;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::receipt::AttemptReference;

/// Stores which attempt each (provider, provider's id) stands for. `refs` is sorted by these two. An id that was stored
/// before keeps its first attempt.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, refs: &[(String, String, AttemptReference)]) -> Result<()> {
    let Some(keys) = KeyColumns::of(refs.iter().map(|r| r.2.key)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/provider_ref/insert.sql",
        &refs.iter().map(|r| r.0.clone()).collect::<Vec<_>>(),
        &refs.iter().map(|r| r.1.clone()).collect::<Vec<_>>(),
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &refs.iter().map(|r| r.2.attempt).collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes up to `rows` ids of messages older than `oldest`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/provider_ref/delete_old.sql", oldest.0, rows).execute(db).await?.rows_affected())
}
