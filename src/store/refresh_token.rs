//! Refresh tokens, by their hashes.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

/// A sign-in that a token goes on with.
pub struct SignedIn {
    pub family: Tsid,
    pub client_id: String,
    pub epoch: i32,
}

pub async fn insert(
    db: impl Db<'_>,
    hash: &[u8],
    of: &SignedIn,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    network: Option<&str>,
) -> Result<()> {
    let (family, client_id, epoch) = (of.family.0, &of.client_id, of.epoch);
    let written = sqlx::query_file!(
        "sql/refresh_token/insert.sql",
        hash,
        family,
        client_id,
        epoch,
        issued_at,
        expires_at,
        network,
    );
    written.execute(db).await?;
    Ok(())
}

/// Uses a token up; none when it was not good any more.
pub async fn use_up(db: impl Db<'_>, hash: &[u8], now: DateTime<Utc>) -> Result<Option<SignedIn>> {
    let row = sqlx::query_file!("sql/refresh_token/use.sql", hash, now).fetch_optional(db).await?;
    Ok(row.map(|r| SignedIn { family: Tsid(r.family), client_id: r.client_id, epoch: r.epoch }))
}

/// What became of a token.
pub struct Past {
    pub family: Tsid,
    pub client_id: String,
    pub used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

pub async fn get(db: impl Db<'_>, hash: &[u8]) -> Result<Option<Past>> {
    let row = sqlx::query_file!("sql/refresh_token/get.sql", hash).fetch_optional(db).await?;
    Ok(row.map(|r| Past {
        family: Tsid(r.family),
        client_id: r.client_id,
        used_at: r.used_at,
        revoked_at: r.revoked_at,
    }))
}

/// Revokes a family; says how many of it were not yet.
pub async fn revoke(db: impl Db<'_>, family: Tsid, now: DateTime<Utc>) -> Result<u64> {
    Ok(sqlx::query_file!("sql/refresh_token/revoke.sql", family.0, now).execute(db).await?.rows_affected())
}

pub async fn forget(db: impl Db<'_>, over_before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/refresh_token/forget.sql", over_before, rows).execute(db).await?.rows_affected())
}
