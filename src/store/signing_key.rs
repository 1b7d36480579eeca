//! Keys that sign tokens, sealed.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;

pub struct SigningKey {
    pub kid: String,
    pub sealed: Vec<u8>,
    pub created_at: DateTime<Utc>,
    pub active_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

pub async fn insert(db: impl Db<'_>, key: &SigningKey) -> Result<()> {
    sqlx::query_file!("sql/signing_key/insert.sql", key.kid, key.sealed, key.created_at, key.active_at, key.expires_at)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn list(db: impl Db<'_>, now: DateTime<Utc>) -> Result<Vec<SigningKey>> {
    Ok(sqlx::query_file_as!(SigningKey, "sql/signing_key/list.sql", now).fetch_all(db).await?)
}

pub async fn reseal(db: impl Db<'_>, kid: &str, sealed: &[u8]) -> Result<()> {
    sqlx::query_file!("sql/signing_key/reseal.sql", kid, sealed).execute(db).await?;
    Ok(())
}

/// All but one.
pub async fn expire_others(db: impl Db<'_>, kept: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/signing_key/expire.sql", kept, now).execute(db).await?;
    Ok(())
}

pub async fn forget(db: impl Db<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/signing_key/forget.sql", now).execute(db).await?;
    Ok(())
}
