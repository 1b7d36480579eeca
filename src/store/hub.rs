//! The installation's own keys and locks, and facts about its PostgreSQL server.

use chrono::{DateTime, Utc};

use super::{Conn, Db};
use crate::error::Result;
use crate::id::Tsid;

/// The installation's key of that name. Stores `fresh` (32 random bytes) if there is none yet; of concurrent callers
/// all get the same key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn get_or_create_key(db: impl Db<'_>, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
    Ok(sqlx::query_file_scalar!("sql/hub/get_or_create_key.sql", name, fresh).fetch_one(db).await?)
}

/// The installation's key of that name, if it exists.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn get_key(db: impl Db<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_file_scalar!("sql/hub/get_key.sql", name).fetch_optional(db).await?)
}

/// A node number for ids that none of the last thousand started processes has.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn next_node_number(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/hub/next_node_number.sql").fetch_one(db).await?)
}

/// The database's clock.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn database_time(db: impl Db<'_>) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_file_scalar!("sql/hub/database_time.sql").fetch_one(db).await?)
}

/// Work that one process does at a time. Each lock is a row of `hub_locks`: an advisory lock could be held by any login
/// of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubLock {
    SigningKeys,
    DropPartitions,
    /// Erasing a partner's content that its retention no longer allows.
    Retention(Tsid),
}

impl HubLock {
    fn name(self) -> &'static str {
        match self {
            HubLock::SigningKeys => "signing_keys",
            HubLock::DropPartitions => "drop_partitions",
            HubLock::Retention(_) => "retention",
        }
    }

    fn partner(self) -> i64 {
        match self {
            HubLock::Retention(partner_id) => partner_id.0,
            HubLock::SigningKeys | HubLock::DropPartitions => 0,
        }
    }
}

/// Takes the lock, waiting for it, and holds it until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock(tx: &mut Conn, lock: HubLock) -> Result<()> {
    sqlx::query_file!("sql/hub/lock.sql", lock.name(), lock.partner()).execute(tx).await?;
    Ok(())
}

/// Creates the row that `try_lock` locks. Call it outside any transaction, so that no other process waits for the
/// uncommitted row.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn ensure_lock_row(db: impl Db<'_>, lock: HubLock) -> Result<()> {
    sqlx::query_file!("sql/hub/ensure_lock_row.sql", lock.name(), lock.partner()).execute(db).await?;
    Ok(())
}

/// Takes the lock until the transaction ends; false if another process has it. Needs the row that `ensure_lock_row`
/// creates.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn try_lock(tx: &mut Conn, lock: HubLock) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/hub/try_lock.sql", lock.name(), lock.partner()).fetch_one(tx).await?)
}

/// A setting of the server, as `pg_settings` has it.
pub struct ServerSetting {
    pub name: String,
    pub setting: String,
    pub unit: Option<String>,
}

/// The server settings that durability and `notihub doctor` depend on, by name.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn server_settings(db: impl Db<'_>) -> Result<Vec<ServerSetting>> {
    Ok(sqlx::query_file_as!(ServerSetting, "sql/hub/server_settings.sql").fetch_all(db).await?)
}

/// Whether the server is a standby, and how far it is behind.
pub struct ReplicationStatus {
    pub in_recovery: bool,
    /// WAL that it has received and not yet replayed.
    pub behind_bytes: Option<i64>,
    /// Seconds since the commit of the last transaction replayed.
    pub replayed_ago_s: Option<f64>,
    /// It is receiving from its primary now.
    pub connected: bool,
}

/// Whether the server is a standby, and how far it is behind.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn replication_status(db: impl Db<'_>) -> Result<ReplicationStatus> {
    Ok(sqlx::query_file_as!(ReplicationStatus, "sql/hub/replication_status.sql").fetch_one(db).await?)
}

/// Age in seconds of the oldest snapshot held by another session: dead rows since then cannot be vacuumed. None if
/// there is none.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn oldest_snapshot_age(db: impl Db<'_>) -> Result<Option<f64>> {
    Ok(sqlx::query_file_scalar!("sql/hub/oldest_snapshot_age.sql").fetch_one(db).await?)
}
