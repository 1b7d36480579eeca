//! Worker processes.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

/// A worker process.
#[derive(Debug, Clone)]
pub struct WorkerRow {
    pub worker_id: i64,
    pub host: String,
    pub pid: i32,
    pub version: String,
    pub started_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
}

/// Records that a worker process is alive.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn heartbeat(db: impl Db<'_>, worker_id: Tsid, host: &str, pid: i32, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/worker/heartbeat.sql", worker_id.0, host, pid, env!("CARGO_PKG_VERSION"), now)
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes workers not seen since `before`, and the one that leaves. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_stale(db: impl Db<'_>, before: DateTime<Utc>, leaving: Option<Tsid>) -> Result<u64> {
    let query = sqlx::query_file!("sql/worker/delete_stale.sql", before, leaving.map(|w| w.0));
    Ok(query.execute(db).await?.rows_affected())
}

/// Workers seen at `since` or later, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list(db: impl Db<'_>, since: DateTime<Utc>) -> Result<Vec<WorkerRow>> {
    Ok(sqlx::query_file_as!(WorkerRow, "sql/worker/list.sql", since).fetch_all(db).await?)
}
