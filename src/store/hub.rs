//! What the installation knows of itself and of its server.

use chrono::{DateTime, Utc};

use super::{Conn, Db};
use crate::error::Result;
use crate::id::Tsid;

/// The named key of this installation; `fresh` becomes it when there is none yet.
pub async fn key(db: impl Db<'_>, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
    Ok(sqlx::query_file_scalar!("sql/hub/key.sql", name, fresh).fetch_one(db).await?)
}

/// The named key of this installation, if it has made it.
pub async fn own_key(db: impl Db<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_file_scalar!("sql/hub/own_key.sql", name).fetch_optional(db).await?)
}

/// A node number for ids that no process started in the last thousand has.
pub async fn node(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/hub/node.sql").fetch_one(db).await?)
}

pub async fn clock(db: impl Db<'_>) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_file_scalar!("sql/hub/clock.sql").fetch_one(db).await?)
}

/// What one process at a time does. A row of `hub_locks` each: an advisory lock could be held by any login of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    SigningKeys,
    DropPartitions,
    /// Of one partner: erasing what its retention does not allow any more.
    Retention(Tsid),
}

impl Lock {
    fn name(self) -> &'static str {
        match self {
            Lock::SigningKeys => "signing_keys",
            Lock::DropPartitions => "drop_partitions",
            Lock::Retention(_) => "retention",
        }
    }

    fn partner(self) -> i64 {
        match self {
            Lock::Retention(partner_id) => partner_id.0,
            Lock::SigningKeys | Lock::DropPartitions => 0,
        }
    }
}

/// Waits for the lock, and holds it until the transaction ends.
pub async fn lock(tx: &mut Conn, lock: Lock) -> Result<()> {
    sqlx::query_file!("sql/hub/lock.sql", lock.name(), lock.partner()).execute(tx).await?;
    Ok(())
}

/// Makes what `try_lock` locks, if there is none yet. Outside any transaction.
pub async fn make_lock(db: impl Db<'_>, lock: Lock) -> Result<()> {
    sqlx::query_file!("sql/hub/make_lock.sql", lock.name(), lock.partner()).execute(db).await?;
    Ok(())
}

/// Holds the lock until the transaction ends; false when another process has it.
pub async fn try_lock(tx: &mut Conn, lock: Lock) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/hub/try_lock.sql", lock.name(), lock.partner()).fetch_one(tx).await?)
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
