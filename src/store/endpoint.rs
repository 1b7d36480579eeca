//! Endpoints.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Db;
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::endpoint::Endpoint;

/// Where a secret of an endpoint stands: bound to its row and column.
fn place(column: &str, endpoint_id: Tsid) -> String {
    format!("endpoints|{column}|{endpoint_id}")
}

fn open(keyring: &Keyring, column: &str, endpoint_id: Tsid, sealed: &[u8]) -> Result<String> {
    let plain = keyring.open(&place(column, endpoint_id), sealed)?;
    String::from_utf8(plain).map_err(|_| Error::Internal(format!("{column} of endpoint {endpoint_id} is not text")))
}

/// As it is kept, its secrets sealed.
struct Row {
    shard: i16,
    partner_id: i64,
    endpoint_id: i64,
    url: String,
    description: Option<String>,
    events: Option<Vec<String>>,
    status: String,
    disabled_reason: Option<String>,
    ordered: bool,
    include_content: bool,
    contact_email: Option<String>,
    headers: Option<Vec<u8>>,
    secret: Vec<u8>,
    former_secret: Option<Vec<u8>>,
    former_until: Option<DateTime<Utc>>,
    failing_since: Option<DateTime<Utc>>,
    last_success_at: Option<DateTime<Utc>>,
    last_failure_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn open(self, keyring: &Keyring) -> Result<Endpoint> {
        let id = Tsid(self.endpoint_id);
        let former = match (&self.former_secret, self.former_until) {
            (Some(sealed), Some(until)) => Some((open(keyring, "former_secret", id, sealed)?, until)),
            _ => None,
        };
        let headers = match &self.headers {
            Some(sealed) => serde_json::from_str(&open(keyring, "headers", id, sealed)?)
                .map_err(|e| Error::Internal(format!("headers of endpoint {id}: {e}")))?,
            None => BTreeMap::new(),
        };
        Ok(Endpoint {
            shard: self.shard,
            partner_id: Tsid(self.partner_id),
            endpoint_id: id,
            url: self.url,
            description: self.description,
            events: self.events,
            status: self.status.parse().map_err(|()| Error::Internal("unknown endpoint status".into()))?,
            disabled_reason: self.disabled_reason,
            ordered: self.ordered,
            include_content: self.include_content,
            contact_email: self.contact_email,
            headers,
            secret: open(keyring, "secret", id, &self.secret)?,
            former,
            failing_since: self.failing_since,
            last_success_at: self.last_success_at,
            last_failure_at: self.last_failure_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Those of these endpoints that there are. One that does not open here is left out, and told in the log.
pub async fn load(db: impl Db<'_>, keyring: &Keyring, ids: &[Tsid]) -> Result<Vec<Endpoint>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(Row, "sql/endpoint/load.sql", &ids).fetch_all(db).await?;
    let opened = rows.into_iter().map(|row| row.open(keyring));
    Ok(opened
        .filter_map(|e| e.inspect_err(|e| tracing::error!(error = %e, "an endpoint cannot be read")).ok())
        .collect())
}

/// What an endpoint answered of late, as one process saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeardBack {
    pub success_at: Option<DateTime<Utc>>,
    pub failure_at: Option<DateTime<Utc>>,
    /// When it first failed after its last success, or first at all.
    pub failing_since: Option<DateTime<Utc>>,
}

/// Adds what endpoints answered; returns those in use that fail since `too_long` or longer.
pub async fn heard_back(db: impl Db<'_>, heard: &[(Tsid, HeardBack)], too_long: DateTime<Utc>) -> Result<Vec<Tsid>> {
    let rows = sqlx::query_file!(
        "sql/endpoint/heard_back.sql",
        &heard.iter().map(|h| h.0.0).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.1.success_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &heard.iter().map(|h| h.1.failure_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &heard.iter().map(|h| h.1.failing_since).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        too_long,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter(|r| r.too_long).map(|r| Tsid(r.endpoint_id)).collect())
}

/// Whose endpoint was disabled.
pub struct Disabled {
    pub shard: i16,
    pub partner_id: Tsid,
    pub url: String,
    pub contact_email: Option<String>,
}

/// None when it is not in use, or not any more.
pub async fn disable(db: impl Db<'_>, endpoint_id: Tsid, reason: &str, now: DateTime<Utc>) -> Result<Option<Disabled>> {
    let row = sqlx::query_file!("sql/endpoint/disable.sql", endpoint_id.0, reason, now).fetch_optional(db).await?;
    Ok(row.map(|r| Disabled {
        shard: r.shard,
        partner_id: Tsid(r.partner_id),
        url: r.url,
        contact_email: r.contact_email,
    }))
}
