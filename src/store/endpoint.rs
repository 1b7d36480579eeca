//! Endpoints: URLs that partners register for their webhooks. Secrets and custom headers are sealed with a master key.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Conn, Db, parse_word};
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::endpoint::{AnswerSummary, Endpoint};

/// Name of a sealed value: binds it to its row and column, so that it opens nowhere else.
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

/// An endpoint as stored, its secrets sealed.
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
            status: parse_word(&self.status, "endpoint status")?,
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

/// Endpoints by id, of any partner and status. An endpoint whose secrets do not open with the master keys of this
/// process is left out and logged.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn load(db: impl Db<'_>, keyring: &Keyring, ids: &[Tsid]) -> Result<Vec<Endpoint>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(SealedEndpoint, "sql/endpoint/load.sql", &ids).fetch_all(db).await?;
    let log = |e: &Error| tracing::error!(error = %e, "an endpoint is left out: its secrets do not open here");
    Ok(rows.into_iter().filter_map(|row| row.open(keyring).inspect_err(log).ok()).collect())
}

/// An endpoint of a partner. None if it does not exist, is deleted, or is another partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Setup` if the master key
/// that sealed its secrets is not here.
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

/// As `get`, and locks the row until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Setup` if the master key that sealed its secrets is not here.
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

/// Up to `rows` endpoints of these partners (id and shard of each), with ids below `below` and from `from` on, newest
/// first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Setup` if the master key
/// that sealed a secret is not here.
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

/// Number of a partner's endpoints, and number of those it deleted since `since`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count(db: impl Db<'_>, partner_id: Tsid, shard: i16, since: DateTime<Utc>) -> Result<(i64, i64)> {
    let row = sqlx::query_file!("sql/endpoint/count.sql", partner_id.0, shard, since).fetch_one(db).await?;
    Ok((row.endpoints, row.deleted))
}

/// The partner of an endpoint. None if the endpoint does not exist or is deleted.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn partner_of(db: impl Db<'_>, endpoint_id: Tsid) -> Result<Option<Tsid>> {
    let row = sqlx::query_file_scalar!("sql/endpoint/partner_of.sql", endpoint_id.0).fetch_optional(db).await?;
    Ok(row.map(Tsid))
}

/// Inserts an endpoint, ACTIVE and without a former secret.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
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

/// Writes the settings of an endpoint, but not its secrets.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
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

/// Writes the secret and the former secret of an endpoint.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn rotate_secret(db: impl Db<'_>, keyring: &Keyring, e: &Endpoint) -> Result<()> {
    let former = e.previous_secret.as_ref().map(|(secret, _)| seal(keyring, "former_secret", e.endpoint_id, secret));
    sqlx::query_file!(
        "sql/endpoint/rotate_secret.sql",
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

/// An endpoint whose parked deliveries have to be released.
pub struct ReleasableEndpoint {
    pub shard: i16,
    pub endpoint_id: i64,
    /// As read; `clear_resumed` compares it.
    pub resumed_at: DateTime<Utc>,
    /// It is ACTIVE and ordered: its events still go in order.
    pub in_order: bool,
}

/// Endpoints whose parked deliveries have to be released, longest waiting first: they were resumed, disabled or
/// deleted, or are no longer ordered.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list_releasable(db: impl Db<'_>) -> Result<Vec<ReleasableEndpoint>> {
    Ok(sqlx::query_file_as!(ReleasableEndpoint, "sql/endpoint/list_releasable.sql").fetch_all(db).await?)
}

/// Records that nothing is parked for an endpoint any more, unless it was resumed again since `seen` was read.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn clear_resumed(db: impl Db<'_>, seen: &ReleasableEndpoint) -> Result<()> {
    sqlx::query_file!("sql/endpoint/clear_resumed.sql", seen.endpoint_id, seen.resumed_at).execute(db).await?;
    Ok(())
}

/// Of each sealed column one value per master key that sealed any: the column, and whether the value opens with the
/// keys of this process.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn check_seals(db: impl Db<'_>, keyring: &Keyring) -> Result<Vec<(String, bool)>> {
    let rows = sqlx::query_file!("sql/endpoint/sample_seals.sql").fetch_all(db).await?.into_iter();
    let opens = rows.map(|r| {
        let opens = keyring.open(&place(&r.place, Tsid(r.endpoint_id)), &r.sealed).is_ok();
        (r.place, opens)
    });
    Ok(opens.collect())
}

/// The sealed values of an endpoint.
pub struct SealedSecrets {
    pub endpoint_id: i64,
    headers: Option<Vec<u8>>,
    secret: Vec<u8>,
    former_secret: Option<Vec<u8>>,
}

impl SealedSecrets {
    /// The same values sealed under the current master key. None if all are sealed under it already.
    ///
    /// # Errors
    /// `Error::Setup` if the master key that sealed a value is not here.
    pub fn resealed(&self, keyring: &Keyring) -> Result<Option<SealedSecrets>> {
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
        Ok(Some(SealedSecrets {
            endpoint_id: self.endpoint_id,
            headers: headers?,
            secret: anew("secret", &self.secret)?,
            former_secret: former?,
        }))
    }
}

/// Locks up to `rows` endpoints with ids after `after`, in the order of their ids, and returns their sealed values.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_secrets(tx: &mut Conn, after: i64, rows: i64) -> Result<Vec<SealedSecrets>> {
    Ok(sqlx::query_file_as!(SealedSecrets, "sql/endpoint/lock_secrets.sql", after, rows).fetch_all(tx).await?)
}

/// Replaces the sealed values of an endpoint.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update_secrets(db: impl Db<'_>, anew: &SealedSecrets) -> Result<()> {
    sqlx::query_file!(
        "sql/endpoint/update_secrets.sql",
        anew.endpoint_id,
        anew.headers.as_deref(),
        anew.secret,
        anew.former_secret.as_deref()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Opens the sealed custom headers of an endpoint: a JSON object.
///
/// # Errors
/// `Error::Setup` if the master key that sealed them is not here.
pub fn open_headers(keyring: &Keyring, endpoint_id: Tsid, sealed: &[u8]) -> Result<String> {
    open(keyring, "headers", endpoint_id, sealed)
}

/// Adds the times at which endpoints answered this process. `answers` is sorted by endpoint, so that two processes
/// cannot deadlock. Returns the ACTIVE and PAUSED endpoints that have failed since `too_long` or longer.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_answers(
    db: impl Db<'_>,
    answers: &[(Tsid, AnswerSummary)],
    too_long: DateTime<Utc>,
) -> Result<Vec<Tsid>> {
    let rows = sqlx::query_file!(
        "sql/endpoint/record_answers.sql",
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

/// An endpoint that was disabled just now.
pub struct DisabledEndpoint {
    pub shard: i16,
    pub partner_id: Tsid,
    pub url: String,
    pub contact_email: Option<String>,
}

/// Disables an endpoint that is ACTIVE or PAUSED and, with `url`, still has that URL. None otherwise.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn disable(
    db: impl Db<'_>,
    endpoint_id: Tsid,
    reason: &str,
    url: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Option<DisabledEndpoint>> {
    let row = sqlx::query_file!("sql/endpoint/disable.sql", endpoint_id.0, reason, now, url).fetch_optional(db).await?;
    Ok(row.map(|r| DisabledEndpoint {
        shard: r.shard,
        partner_id: Tsid(r.partner_id),
        url: r.url,
        contact_email: r.contact_email,
    }))
}

/// Endpoints that are PAUSED and were not changed since `since`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn paused_since(db: impl Db<'_>, since: DateTime<Utc>) -> Result<Vec<Tsid>> {
    let ids = sqlx::query_file_scalar!("sql/endpoint/paused_since.sql", since).fetch_all(db).await?;
    Ok(ids.into_iter().map(Tsid).collect())
}

/// Deletes endpoints marked DELETED before `before` that have no deliveries left to release.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn purge(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/endpoint/purge.sql", before).execute(db).await?;
    Ok(())
}
