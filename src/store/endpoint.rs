//! Endpoints.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Conn, Db, word};
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::endpoint::{AnswerSummary, Endpoint};

/// Where a secret of an endpoint stands: bound to its row and column.
fn place(column: &str, endpoint_id: Tsid) -> String {
    format!("endpoints|{column}|{endpoint_id}")
}

fn seal(keyring: &Keyring, column: &str, endpoint_id: Tsid, plain: &str) -> Result<Vec<u8>> {
    keyring.seal(&place(column, endpoint_id), plain.as_bytes())
}

fn open(keyring: &Keyring, column: &str, endpoint_id: Tsid, sealed: &[u8]) -> Result<String> {
    let plain = keyring.open(&place(column, endpoint_id), sealed)?;
    String::from_utf8(plain).map_err(|_| Error::Internal(format!("{column} of endpoint {endpoint_id} is not text")))
}

/// As it is kept, its secrets sealed.
struct SealedEndpoint {
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
    resumed_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl SealedEndpoint {
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
            status: word(&self.status, "endpoint status")?,
            disabled_reason: self.disabled_reason,
            ordered: self.ordered,
            include_content: self.include_content,
            contact_email: self.contact_email,
            headers,
            secret: open(keyring, "secret", id, &self.secret)?,
            previous_secret: former,
            failing_since: self.failing_since,
            last_success_at: self.last_success_at,
            last_failure_at: self.last_failure_at,
            resumed_at: self.resumed_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Those of these endpoints that there are. One that does not open here is left out, and told in the log.
pub async fn load(db: impl Db<'_>, keyring: &Keyring, ids: &[Tsid]) -> Result<Vec<Endpoint>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(SealedEndpoint, "sql/endpoint/load.sql", &ids).fetch_all(db).await?;
    let opened = rows.into_iter().map(|row| row.open(keyring));
    Ok(opened
        .filter_map(|e| e.inspect_err(|e| tracing::error!(error = %e, "an endpoint cannot be read")).ok())
        .collect())
}

/// One of a partner's that is not deleted.
pub async fn get(
    db: impl Db<'_>,
    keyring: &Keyring,
    partner_id: Tsid,
    shard: i16,
    endpoint_id: Tsid,
) -> Result<Option<Endpoint>> {
    let row = sqlx::query_file_as!(SealedEndpoint, "sql/endpoint/get.sql", partner_id.0, shard, endpoint_id.0);
    row.fetch_optional(db).await?.map(|row| row.open(keyring)).transpose()
}

/// As `get`, held still until the transaction ends.
pub async fn lock(
    tx: &mut Conn,
    keyring: &Keyring,
    partner_id: Tsid,
    shard: i16,
    endpoint_id: Tsid,
) -> Result<Option<Endpoint>> {
    let row = sqlx::query_file_as!(SealedEndpoint, "sql/endpoint/lock.sql", partner_id.0, shard, endpoint_id.0);
    row.fetch_optional(tx).await?.map(|row| row.open(keyring)).transpose()
}

/// Of these partners, each with its shard, with ids below one and from another on, newest first.
pub async fn list(
    db: impl Db<'_>,
    keyring: &Keyring,
    owners: &[(Tsid, i16)],
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<Endpoint>> {
    let partners: Vec<i64> = owners.iter().map(|o| o.0.0).collect();
    let shards: Vec<i16> = owners.iter().map(|o| o.1).collect();
    let found =
        sqlx::query_file_as!(SealedEndpoint, "sql/endpoint/list.sql", &partners, &shards, below.0, from.0, rows);
    found.fetch_all(db).await?.into_iter().map(|row| row.open(keyring)).collect()
}

/// How many a partner has, and how many it deleted since then.
pub async fn count(db: impl Db<'_>, partner_id: Tsid, shard: i16, since: DateTime<Utc>) -> Result<(i64, i64)> {
    let row = sqlx::query_file!("sql/endpoint/count.sql", partner_id.0, shard, since).fetch_one(db).await?;
    Ok((row.endpoints, row.deleted))
}

/// Whose it is.
pub async fn owner(db: impl Db<'_>, endpoint_id: Tsid) -> Result<Option<Tsid>> {
    let row = sqlx::query_file_scalar!("sql/endpoint/owner.sql", endpoint_id.0).fetch_optional(db).await?;
    Ok(row.map(Tsid))
}

/// A new one, ACTIVE, without a former secret.
pub async fn insert(db: impl Db<'_>, keyring: &Keyring, e: &Endpoint) -> Result<()> {
    sqlx::query_file!(
        "sql/endpoint/insert.sql",
        e.shard,
        e.partner_id.0,
        e.endpoint_id.0,
        e.endpoint_id.to_string(),
        e.url,
        e.description,
        e.events.as_deref(),
        e.ordered,
        e.include_content,
        e.contact_email,
        headers(keyring, e)?,
        seal(keyring, "secret", e.endpoint_id, &e.secret)?,
        e.created_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes what may be changed, but the secrets.
pub async fn update(db: impl Db<'_>, keyring: &Keyring, e: &Endpoint) -> Result<()> {
    sqlx::query_file!(
        "sql/endpoint/update.sql",
        e.partner_id.0,
        e.shard,
        e.endpoint_id.0,
        e.url,
        e.description,
        e.events.as_deref(),
        e.status.as_str(),
        e.disabled_reason,
        e.ordered,
        e.include_content,
        e.contact_email,
        headers(keyring, e)?,
        e.failing_since,
        e.resumed_at,
        e.updated_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes the secrets.
pub async fn rotate(db: impl Db<'_>, keyring: &Keyring, e: &Endpoint) -> Result<()> {
    let former = e.previous_secret.as_ref().map(|(secret, _)| seal(keyring, "former_secret", e.endpoint_id, secret));
    sqlx::query_file!(
        "sql/endpoint/rotate.sql",
        e.partner_id.0,
        e.shard,
        e.endpoint_id.0,
        seal(keyring, "secret", e.endpoint_id, &e.secret)?,
        former.transpose()?,
        e.previous_secret.as_ref().map(|(_, until)| *until),
        e.updated_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

fn headers(keyring: &Keyring, e: &Endpoint) -> Result<Option<Vec<u8>>> {
    if e.headers.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(&e.headers).map_err(|e| Error::Internal(format!("headers: {e}")))?;
    seal(keyring, "headers", e.endpoint_id, &text).map(Some)
}

/// An endpoint of which something may be parked that is to go.
pub struct Resumed {
    pub shard: i16,
    pub endpoint_id: i64,
    pub resumed_at: DateTime<Utc>,
    /// Its events still go in order.
    pub in_order: bool,
}

pub async fn resumed(db: impl Db<'_>) -> Result<Vec<Resumed>> {
    Ok(sqlx::query_file_as!(Resumed, "sql/endpoint/resumed.sql").fetch_all(db).await?)
}

/// Nothing is parked for it any more, unless it was resumed anew.
pub async fn released(db: impl Db<'_>, seen: &Resumed) -> Result<()> {
    sqlx::query_file!("sql/endpoint/released.sql", seen.endpoint_id, seen.resumed_at).execute(db).await?;
    Ok(())
}

/// Of each sealed column one value for each master key that sealed any: the column, and whether it opens.
pub async fn seals(db: impl Db<'_>, keyring: &Keyring) -> Result<Vec<(String, bool)>> {
    let rows = sqlx::query_file!("sql/endpoint/seals.sql").fetch_all(db).await?.into_iter();
    let opens = rows.map(|r| {
        let opens = keyring.open(&place(&r.place, Tsid(r.endpoint_id)), &r.sealed).is_ok();
        (r.place, opens)
    });
    Ok(opens.collect())
}

/// What is sealed of an endpoint.
pub struct Sealed {
    pub endpoint_id: i64,
    headers: Option<Vec<u8>>,
    secret: Vec<u8>,
    former_secret: Option<Vec<u8>>,
}

impl Sealed {
    /// Sealed under the key that seals now; none when it is so already.
    pub fn anew(&self, keyring: &Keyring) -> Result<Option<Sealed>> {
        let columns = [("headers", &self.headers), ("former_secret", &self.former_secret)];
        if keyring.is_fresh(&self.secret) && columns.iter().all(|c| c.1.as_ref().is_none_or(|s| keyring.is_fresh(s))) {
            return Ok(None);
        }
        let id = Tsid(self.endpoint_id);
        let anew = |column: &str, sealed: &[u8]| {
            let place = place(column, id);
            keyring.seal(&place, &keyring.open(&place, sealed)?)
        };
        let [headers, former] = columns.map(|(column, sealed)| sealed.as_ref().map(|s| anew(column, s)).transpose());
        Ok(Some(Sealed {
            endpoint_id: self.endpoint_id,
            headers: headers?,
            secret: anew("secret", &self.secret)?,
            former_secret: former?,
        }))
    }
}

/// What is sealed of endpoints with ids after one, held still until the transaction ends.
pub async fn sealed(tx: &mut Conn, after: i64, rows: i64) -> Result<Vec<Sealed>> {
    Ok(sqlx::query_file_as!(Sealed, "sql/endpoint/sealed.sql", after, rows).fetch_all(tx).await?)
}

pub async fn reseal(db: impl Db<'_>, anew: &Sealed) -> Result<()> {
    sqlx::query_file!(
        "sql/endpoint/reseal.sql",
        anew.endpoint_id,
        anew.headers.as_deref(),
        anew.secret,
        anew.former_secret.as_deref()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The custom headers of an endpoint as they are kept: a JSON object.
///
/// # Errors
/// `Error::Setup` when the master key that sealed them is not here.
pub fn open_headers(keyring: &Keyring, endpoint_id: Tsid, sealed: &[u8]) -> Result<String> {
    open(keyring, "headers", endpoint_id, sealed)
}

/// Adds what endpoints answered one process. `answers` is sorted by endpoint: two processes then never wait for each
/// other in a ring. Returns those in use that have failed since `too_long` or longer.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing was added, or perhaps all.
pub async fn heard_back(
    db: impl Db<'_>,
    answers: &[(Tsid, AnswerSummary)],
    too_long: DateTime<Utc>,
) -> Result<Vec<Tsid>> {
    let rows = sqlx::query_file!(
        "sql/endpoint/heard_back.sql",
        &answers.iter().map(|a| a.0.0).collect::<Vec<_>>(),
        &answers.iter().map(|a| a.1.success_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &answers.iter().map(|a| a.1.failure_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &answers.iter().map(|a| a.1.failing_since).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
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

/// None when it is not in use, or not any more; or when it has another URL by now.
pub async fn disable(
    db: impl Db<'_>,
    endpoint_id: Tsid,
    reason: &str,
    url: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Option<Disabled>> {
    let row = sqlx::query_file!("sql/endpoint/disable.sql", endpoint_id.0, reason, now, url).fetch_optional(db).await?;
    Ok(row.map(|r| Disabled {
        shard: r.shard,
        partner_id: Tsid(r.partner_id),
        url: r.url,
        contact_email: r.contact_email,
    }))
}

/// Those that are paused and were not touched since then.
pub async fn abandoned(db: impl Db<'_>, since: DateTime<Utc>) -> Result<Vec<Tsid>> {
    let ids = sqlx::query_file_scalar!("sql/endpoint/abandoned.sql", since).fetch_all(db).await?;
    Ok(ids.into_iter().map(Tsid).collect())
}

/// Forgets those deleted before then, once nothing is parked for them.
pub async fn purge(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/endpoint/purge.sql", before).execute(db).await?;
    Ok(())
}
