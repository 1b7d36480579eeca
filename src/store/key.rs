//! API keys: client ids and secrets with which partners and staff sign in.

use chrono::{DateTime, Utc};

use super::{Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::access::role::Role;
use crate::model::access::sign_in_throttle::Failures;

/// An API key with the hashes of its secrets.
pub struct ApiKeyRow {
    pub client_id: String,
    pub role: Role,
    /// The partner it speaks for; None: a key of staff.
    pub partner_id: Option<Tsid>,
    pub name: String,
    pub secret_hash: Vec<u8>,
    /// Hash of the secret before the last rotation, valid until `former_until`.
    pub former_hash: Option<Vec<u8>>,
    pub former_until: Option<DateTime<Utc>>,
    /// Raised by every rotation and revocation; tokens of an earlier epoch are invalid (one rotation back valid until
    /// `former_until`).
    pub epoch: i32,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

macro_rules! key {
    ($r:expr) => {
        ApiKeyRow {
            client_id: $r.client_id,
            role: parse_word(&$r.role, "role")?,
            partner_id: $r.partner_id.map(Tsid),
            name: $r.name,
            secret_hash: $r.secret_hash,
            former_hash: $r.former_hash,
            former_until: $r.former_until,
            epoch: $r.epoch,
            revoked_at: $r.revoked_at,
            created_at: $r.created_at,
        }
    };
}

/// Inserts a key. False if the client id, or a key of the partner, exists already.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, key: &ApiKeyRow, now: DateTime<Utc>) -> Result<bool> {
    let written = sqlx::query_file_scalar!(
        "sql/key/insert.sql",
        key.client_id,
        key.role.as_str(),
        key.partner_id.map(|id| id.0),
        key.name,
        key.secret_hash,
        now,
    );
    Ok(written.fetch_optional(db).await?.is_some())
}

/// An API key by client id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// role that this program does not know.
pub async fn get(db: impl Db<'_>, client_id: &str) -> Result<Option<ApiKeyRow>> {
    let row = sqlx::query_file!("sql/key/get.sql", client_id).fetch_optional(db).await?;
    row.map(|r| Ok(key!(r))).transpose()
}

/// An API key at sign-in, with the failed sign-ins that count against it.
pub struct SignInKey {
    pub key: ApiKeyRow,
    /// The network whose failures count; empty: all in which the client holds no refresh token.
    pub network: String,
    pub failures: Option<Failures>,
}

/// The API key of a client that signs in from `network` (empty: unknown).
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// role that this program does not know.
pub async fn get_for_sign_in(
    db: impl Db<'_>,
    client_id: &str,
    network: &str,
    now: DateTime<Utc>,
) -> Result<Option<SignInKey>> {
    let row = sqlx::query_file!("sql/key/get_for_sign_in.sql", client_id, network, now).fetch_optional(db).await?;
    row.map(|r| {
        let count = r.failures.map(|n| u32::try_from(n).unwrap_or(0));
        Ok(SignInKey {
            key: key!(r),
            network: r.network,
            failures: r.since.zip(count).map(|(since, count)| Failures { since, count }),
        })
    })
    .transpose()
}

/// The client id of a partner's key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn client_id_of_partner(db: impl Db<'_>, partner_id: Tsid) -> Result<Option<String>> {
    Ok(sqlx::query_file_scalar!("sql/key/client_id_of_partner.sql", partner_id.0).fetch_optional(db).await?)
}

/// An API key as it is listed.
pub struct ListedKey {
    pub client_id: String,
    pub role: Role,
    pub partner_id: Option<Tsid>,
    pub name: String,
    pub former_until: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// All API keys, oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// role that this program does not know.
pub async fn list(db: impl Db<'_>) -> Result<Vec<ListedKey>> {
    let rows = sqlx::query_file!("sql/key/list.sql").fetch_all(db).await?.into_iter();
    rows.map(|r| {
        Ok(ListedKey {
            client_id: r.client_id,
            role: parse_word(&r.role, "role")?,
            partner_id: r.partner_id.map(Tsid),
            name: r.name,
            former_until: r.former_until,
            revoked_at: r.revoked_at,
            created_at: r.created_at,
        })
    })
    .collect()
}

/// Whether an admin key exists that is not revoked.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn any_admin(db: impl Db<'_>) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/key/any_admin.sql").fetch_one(db).await?)
}

/// Sets a new secret; a revoked key becomes valid again. The former secret stays valid until `former_until`; None: it
/// is invalid at once. False if there is no such key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn rotate(
    db: impl Db<'_>,
    client_id: &str,
    secret_hash: &[u8],
    former_until: Option<DateTime<Utc>>,
) -> Result<bool> {
    let done = sqlx::query_file!("sql/key/rotate.sql", client_id, secret_hash, former_until).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes a key with its secrets and tokens. False if there is no such key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn revoke(db: impl Db<'_>, client_id: &str, now: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_file!("sql/key/revoke.sql", client_id, now).execute(db).await?.rows_affected() == 1)
}

/// Invalidates every token of a partner's key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn invalidate_tokens(db: impl Db<'_>, partner_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/key/invalidate_tokens.sql", partner_id.0).execute(db).await?;
    Ok(())
}
