//! Passwords of users, as hashes, and their failed sign-ins.

use chrono::{DateTime, Utc};

use super::user::Credential;
use super::{Conn, Db};
use crate::error::Result;
use crate::id::Tsid;

/// Stores the hash of a user's password.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, shard: i16, user_id: Tsid, hash: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/credential/insert.sql", shard, user_id.0, hash, now).execute(db).await?;
    Ok(())
}

/// The hash of a user's password and its failed sign-ins. None: the user has no password.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn get(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<Option<Credential>> {
    Ok(sqlx::query_file_as!(Credential, "sql/credential/get.sql", shard, user_id.0).fetch_optional(db).await?)
}

/// Locks the count of a user's failed sign-ins in a row and returns it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_failures(tx: &mut Conn, shard: i16, user_id: Tsid) -> Result<Option<i16>> {
    Ok(sqlx::query_file_scalar!("sql/credential/lock_failures.sql", shard, user_id.0).fetch_optional(tx).await?)
}

/// Writes the count of a user's failed sign-ins in a row, and the time until which every sign-in is refused.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_failures(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    failures: i16,
    wait_until: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query_file!("sql/credential/set_failures.sql", shard, user_id.0, failures, wait_until).execute(db).await?;
    Ok(())
}

/// Replaces the hash `before` of a user's password by `hash`. False if it is another one by now.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_hash(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    before: &str,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query_file!("sql/credential/set_hash.sql", shard, user_id.0, before, hash, now);
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Deletes the password of a user.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/credential/delete.sql", shard, user_id.0).execute(db).await?;
    Ok(())
}
