//! Blocks: the users that a user wants nothing from.

use chrono::{DateTime, Utc};

use super::Db;
use super::user::user;
use crate::error::Result;
use crate::id::Tsid;
use crate::limits;
use crate::model::user::User;

/// Blocks a user for another. Again is the same. False if the other has blocked `most` users already.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    blocked: Tsid,
    now: DateTime<Utc>,
    most: i64,
) -> Result<bool> {
    let done = sqlx::query_file_scalar!("sql/user_block/insert.sql", shard, user_id.0, blocked.0, now, most);
    Ok(done.fetch_one(db).await?)
}

/// Unblocks a user. Again is the same.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete(db: impl Db<'_>, shard: i16, user_id: Tsid, blocked: Tsid) -> Result<()> {
    sqlx::query_file!("sql/user_block/delete.sql", shard, user_id.0, blocked.0).execute(db).await?;
    Ok(())
}

/// Deletes every block by a user and of it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_of_user(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/user_block/delete_of_user.sql", shard, user_id.0).execute(db).await?;
    Ok(())
}

/// Whether a user has blocked another.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn exists(db: impl Db<'_>, shard: i16, user_id: Tsid, blocked: Tsid) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/user_block/exists.sql", shard, user_id.0, blocked.0).fetch_one(db).await?)
}

/// Up to `rows` users that a user has blocked, with ids below `below`, the newest of them first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn list(db: impl Db<'_>, shard: i16, user_id: Tsid, below: Tsid, rows: i64) -> Result<Vec<User>> {
    let found = sqlx::query_file!("sql/user_block/list.sql", shard, user_id.0, below.0, rows).fetch_all(db).await?;
    found.into_iter().map(|r| user!(r)).collect()
}

/// A block between a user and one of these others: who blocked, and who is blocked.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn between(db: impl Db<'_>, shard: i16, user_id: Tsid, others: &[Tsid]) -> Result<Option<(Tsid, Tsid)>> {
    let others: Vec<i64> = others.iter().map(|id| id.0).collect();
    let found = sqlx::query_file!("sql/user_block/between.sql", shard, user_id.0, &others).fetch_optional(db).await?;
    Ok(found.map(|r| (Tsid(r.user_id), Tsid(r.blocked_id))))
}

/// Users that one user has blocked, and those that have blocked it; `limits::BLOCKS_KNOWN` of each at most.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn around(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<Vec<Tsid>> {
    let found = sqlx::query_file_scalar!("sql/user_block/around.sql", shard, user_id.0, limits::BLOCKS_KNOWN);
    Ok(found.fetch_all(db).await?.into_iter().map(Tsid).collect())
}
