//! Processes that claim.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

#[derive(Debug, Clone)]
pub struct WorkerRow {
    pub worker_id: i64,
    pub host: String,
    pub pid: i32,
    pub version: String,
    pub started_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
}

pub async fn seen(db: impl Db<'_>, worker_id: Tsid, host: &str, pid: i32, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/worker/seen.sql", worker_id.0, host, pid, env!("CARGO_PKG_VERSION"), now)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets workers not seen since `before`, and the one that leaves.
pub async fn forget(db: impl Db<'_>, before: DateTime<Utc>, leaving: Option<Tsid>) -> Result<u64> {
    let query = sqlx::query_file!("sql/worker/forget.sql", before, leaving.map(|w| w.0));
    Ok(query.execute(db).await?.rows_affected())
}

pub async fn list(db: impl Db<'_>, since: DateTime<Utc>) -> Result<Vec<WorkerRow>> {
    Ok(sqlx::query_file_as!(WorkerRow, "sql/worker/list.sql", since).fetch_all(db).await?)
}
