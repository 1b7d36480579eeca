//! Providers' own ids of what they took, where they do not repeat ours when they tell what became of it.

use super::Db;
use super::keys::Keys;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::receipt::AttemptReference;

/// Keeps which attempt (provider, its id) stands for. Sorted.
pub async fn insert(db: impl Db<'_>, refs: &[(String, String, AttemptReference)]) -> Result<()> {
    let Some(keys) = Keys::of(refs.iter().map(|r| r.2.key)) else { return Ok(()) };
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

/// Forgets some whose messages are gone; says how many.
pub async fn forget(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/provider_ref/forget.sql", oldest.0, rows).execute(db).await?.rows_affected())
}
