//! Keys: who may sign in.

use chrono::{DateTime, Utc};

use super::{Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::access::role::Role;
use crate::model::access::sign_in_throttle::Failures;

/// A key with the hashes of its secrets.
pub struct ApiKeyRow {
    pub client_id: String,
    pub role: Role,
    pub partner_id: Option<Tsid>,
    pub name: String,
    pub secret_hash: Vec<u8>,
    pub former_hash: Option<Vec<u8>>,
    pub former_until: Option<DateTime<Utc>>,
    pub epoch: i32,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

macro_rules! key {
    ($r:expr) => {
        ApiKeyRow {
            client_id: $r.client_id,
            role: word(&$r.role, "role")?,
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

/// False when there is one already.
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

pub async fn get(db: impl Db<'_>, client_id: &str) -> Result<Option<ApiKeyRow>> {
    let row = sqlx::query_file!("sql/key/get.sql", client_id).fetch_optional(db).await?;
    row.map(|r| Ok(key!(r))).transpose()
}

/// A key that signs in, and the failures that it is judged by.
pub struct Judged {
    pub key: ApiKeyRow,
    /// The network whose failures count; empty: all in which the client holds no refresh token.
    pub network: String,
    pub failures: Option<Failures>,
}

/// The key of a client that signs in from this network; an unknown network is empty.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn to_sign_in(db: impl Db<'_>, client_id: &str, network: &str, now: DateTime<Utc>) -> Result<Option<Judged>> {
    let row = sqlx::query_file!("sql/key/to_sign_in.sql", client_id, network, now).fetch_optional(db).await?;
    row.map(|r| {
        let count = r.failures.map(|n| u32::try_from(n).unwrap_or(0));
        Ok(Judged {
            key: key!(r),
            network: r.network,
            failures: r.since.zip(count).map(|(since, count)| Failures { since, count }),
        })
    })
    .transpose()
}

/// The client id of a partner's key.
pub async fn of_partner(db: impl Db<'_>, partner_id: Tsid) -> Result<Option<String>> {
    Ok(sqlx::query_file_scalar!("sql/key/of_partner.sql", partner_id.0).fetch_optional(db).await?)
}

/// A key as it is listed.
pub struct Listed {
    pub client_id: String,
    pub role: Role,
    pub partner_id: Option<Tsid>,
    pub name: String,
    pub former_until: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

pub async fn list(db: impl Db<'_>) -> Result<Vec<Listed>> {
    let rows = sqlx::query_file!("sql/key/list.sql").fetch_all(db).await?.into_iter();
    rows.map(|r| {
        Ok(Listed {
            client_id: r.client_id,
            role: word(&r.role, "role")?,
            partner_id: r.partner_id.map(Tsid),
            name: r.name,
            former_until: r.former_until,
            revoked_at: r.revoked_at,
            created_at: r.created_at,
        })
    })
    .collect()
}

/// Whether an admin may sign in.
pub async fn any_admin(db: impl Db<'_>) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/key/any.sql").fetch_one(db).await?)
}

/// False when there is no such key.
pub async fn rotate(
    db: impl Db<'_>,
    client_id: &str,
    secret_hash: &[u8],
    former_until: Option<DateTime<Utc>>,
) -> Result<bool> {
    let done = sqlx::query_file!("sql/key/rotate.sql", client_id, secret_hash, former_until).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// False when there is no such key.
pub async fn revoke(db: impl Db<'_>, client_id: &str, now: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_file!("sql/key/revoke.sql", client_id, now).execute(db).await?.rows_affected() == 1)
}

pub async fn void_tokens(db: impl Db<'_>, partner_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/key/void_tokens.sql", partner_id.0).execute(db).await?;
    Ok(())
}
