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
