//! Keys that sign access tokens, sealed with a master key.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;

/// A signing key.
pub struct SigningKey {
    pub kid: String,
    pub sealed: Vec<u8>,
    pub created_at: DateTime<Utc>,
    /// From when it signs tokens.
    pub active_at: DateTime<Utc>,
    /// Until when tokens are verified with it.
    pub expires_at: DateTime<Utc>,
}

/// Inserts a signing key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, key: &SigningKey) -> Result<()> {
    sqlx::query_file!("sql/signing_key/insert.sql", key.kid, key.sealed, key.created_at, key.active_at, key.expires_at)
        .execute(db)
        .await?;
    Ok(())
}

/// Signing keys that have not expired at `now`, oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list(db: impl Db<'_>, now: DateTime<Utc>) -> Result<Vec<SigningKey>> {
    Ok(sqlx::query_file_as!(SigningKey, "sql/signing_key/list.sql", now).fetch_all(db).await?)
}

/// Replaces the sealed value of a key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update_sealed(db: impl Db<'_>, kid: &str, sealed: &[u8]) -> Result<()> {
    sqlx::query_file!("sql/signing_key/update_sealed.sql", kid, sealed).execute(db).await?;
    Ok(())
}

/// Deletes all keys but `kept`, and expired ones: tokens signed with them are invalid from now on.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn expire_others(db: impl Db<'_>, kept: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/signing_key/expire_others.sql", kept, now).execute(db).await?;
    Ok(())
}

/// Deletes keys that have expired at `now`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_expired(db: impl Db<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/signing_key/delete_expired.sql", now).execute(db).await?;
    Ok(())
}
