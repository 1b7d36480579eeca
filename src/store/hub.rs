//! What the installation knows of itself and of its server.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;

/// The named key of this installation; `fresh` becomes it when there is none yet.
pub async fn key(db: impl Db<'_>, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
    Ok(sqlx::query_file_scalar!("sql/hub/key.sql", name, fresh).fetch_one(db).await?)
}

/// A node number for ids that no process started in the last thousand has.
pub async fn node(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/hub/node.sql").fetch_one(db).await?)
}

pub async fn clock(db: impl Db<'_>) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_file_scalar!("sql/hub/clock.sql").fetch_one(db).await?)
}

pub struct Setting {
    pub name: String,
    pub setting: String,
    pub unit: Option<String>,
}

pub async fn settings(db: impl Db<'_>) -> Result<Vec<Setting>> {
    Ok(sqlx::query_file_as!(Setting, "sql/hub/settings.sql").fetch_all(db).await?)
}

/// Whether the server is a standby, and how far behind.
pub struct Replica {
    pub in_recovery: bool,
    /// WAL that it has received and not yet replayed.
    pub behind_bytes: Option<i64>,
    /// Seconds since the commit of the transaction that it replayed last.
    pub replayed_ago_s: Option<f64>,
    /// It receives from its primary now.
    pub connected: bool,
}

pub async fn replica(db: impl Db<'_>) -> Result<Replica> {
    Ok(sqlx::query_file_as!(Replica, "sql/hub/replica.sql").fetch_one(db).await?)
}

/// Age in seconds of the oldest snapshot somebody holds.
pub async fn pinned(db: impl Db<'_>) -> Result<Option<f64>> {
    Ok(sqlx::query_file_scalar!("sql/hub/pinned.sql").fetch_one(db).await?)
}
