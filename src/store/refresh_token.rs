//! Refresh tokens, stored by their hashes. All tokens that descend from one sign-in are a family.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

/// The sign-in that a token continues.
pub struct SignInSession {
    pub family: Tsid,
    pub client_id: String,
    /// Epoch of the API key at sign-in.
    pub epoch: i32,
}

/// Stores a token by its hash. `network`: where it was issued, if known.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(
    db: impl Db<'_>,
    hash: &[u8],
    of: &SignInSession,
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

/// Uses a token. None if it was used, revoked or expired; exactly one of concurrent callers gets the session.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn consume(db: impl Db<'_>, hash: &[u8], now: DateTime<Utc>) -> Result<Option<SignInSession>> {
    let row = sqlx::query_file!("sql/refresh_token/consume.sql", hash, now).fetch_optional(db).await?;
    Ok(row.map(|r| SignInSession { family: Tsid(r.family), client_id: r.client_id, epoch: r.epoch }))
}

/// Use and revocation of a token.
pub struct TokenRow {
    pub family: Tsid,
    pub client_id: String,
    pub used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A token by its hash.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn get(db: impl Db<'_>, hash: &[u8]) -> Result<Option<TokenRow>> {
    let row = sqlx::query_file!("sql/refresh_token/get.sql", hash).fetch_optional(db).await?;
    Ok(row.map(|r| TokenRow {
        family: Tsid(r.family),
        client_id: r.client_id,
        used_at: r.used_at,
        revoked_at: r.revoked_at,
    }))
}

/// Revokes every token of a family. Returns how many were not revoked before.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn revoke_family(db: impl Db<'_>, family: Tsid, now: DateTime<Utc>) -> Result<u64> {
    Ok(sqlx::query_file!("sql/refresh_token/revoke_family.sql", family.0, now).execute(db).await?.rows_affected())
}

/// Revokes every token of a client. Returns how many were not revoked before.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn revoke_of_client(db: impl Db<'_>, client_id: &str, now: DateTime<Utc>) -> Result<u64> {
    Ok(sqlx::query_file!("sql/refresh_token/revoke_of_client.sql", client_id, now).execute(db).await?.rows_affected())
}

/// Deletes every token of a client. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_of_client(db: impl Db<'_>, client_id: &str) -> Result<u64> {
    Ok(sqlx::query_file!("sql/refresh_token/delete_of_client.sql", client_id).execute(db).await?.rows_affected())
}

/// Deletes up to `rows` tokens that expired before `over_before`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_expired(db: impl Db<'_>, over_before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/refresh_token/delete_expired.sql", over_before, rows).execute(db).await?.rows_affected())
}
