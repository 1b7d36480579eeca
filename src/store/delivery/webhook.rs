//! Webhooks: deliveries to endpoints, their order, and what waits for an endpoint.

use chrono::{DateTime, Utc};

use crate::crypt::Keyring;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, READY_WHEN_PREDECESSOR_ENDS, READY_WHEN_RESUMED, Status};
use crate::model::endpoint::Endpoint;
use crate::model::lane::Lane;
use crate::store::keys::{Keys, key};
use crate::store::message::Telling;
use crate::store::{Db, word};

/// Makes up to `rows` deliveries to an endpoint PENDING that are SCHEDULED at `since` (`PARKED` or `BEHIND`), ready
/// from `now` on. Returns shard and lane of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn release(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    since: DateTime<Utc>,
    now: DateTime<Utc>,
    rows: i64,
) -> Result<Vec<(i16, Lane)>> {
    let rows = sqlx::query_file!("sql/delivery/release.sql", shard, recipient, since, now, rows).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (r.shard, Lane(r.lane))).collect())
}

/// Where a walk along what an endpoint got stands: behind this delivery, below this message.
#[derive(Debug, Clone, Copy)]
pub struct Along {
    pub behind: (Tsid, i16),
    pub below: Tsid,
}

/// What was hastened of some of an endpoint's deliveries.
pub struct Hastened {
    pub places: Vec<(i16, Lane)>,
    /// Behind which delivery to go on; none at the end.
    pub next: Option<(Tsid, i16)>,
}

/// Looks at an endpoint's next `look` deliveries, and makes up to `rows` of them PENDING that wait for their next try
/// (one at least). Their attempts and their schedule of retries stay as they are.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn hasten(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    along: Along,
    (look, rows): (i64, usize),
    now: DateTime<Utc>,
) -> Result<Hastened> {
    let most = i64::try_from(rows).unwrap_or(i64::MAX);
    let ((message, no), below) = (along.behind, along.below.0);
    let found = sqlx::query_file!(
        "sql/delivery/hasten.sql",
        shard,
        recipient,
        message.0,
        no,
        below,
        look,
        most,
        now,
        READY_WHEN_RESUMED
    )
    .fetch_all(db)
    .await?;
    let next = found.last().filter(|r| r.more).map(|r| (Tsid(r.message_id), r.no));
    let places = found.iter().filter_map(|r| Some((shard, Lane(r.lane?)))).collect();
    Ok(Hastened { places, next })
}

/// Counts those of an endpoint's next `look` deliveries that wait for their next try. Returns the count, and the
/// delivery behind which to go on; none at the end.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn count_retrying(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    along: Along,
    look: i64,
    now: DateTime<Utc>,
) -> Result<(i64, Option<(Tsid, i16)>)> {
    let ((message, no), below) = (along.behind, along.below.0);
    let found = sqlx::query_file!(
        "sql/delivery/count_retrying.sql",
        shard,
        recipient,
        message.0,
        no,
        below,
        look,
        now,
        READY_WHEN_RESUMED
    )
    .fetch_optional(db)
    .await?;
    let next = found.as_ref().filter(|r| r.position >= look).map(|r| (Tsid(r.message_id), r.no));
    Ok((found.map_or(0, |r| r.waiting), next))
}

/// One event on its way to an endpoint, and its last call.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub message_id: Tsid,
    pub no: i16,
    pub telling: Telling,
    pub status: Status,
    pub reason: Option<String>,
    pub ready_at: DateTime<Utc>,
    pub settled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// How often the endpoint was called for it.
    pub calls: i64,
    pub last: Option<Call>,
}

/// A call to an endpoint.
#[derive(Debug, Clone)]
pub struct Call {
    pub attempt: i16,
    pub outcome: String,
    pub called_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub code: Option<String>,
    pub reason: Option<String>,
    /// What it answered, cut.
    pub detail: Option<String>,
    /// With which status it took it.
    pub provider_ref: Option<String>,
}

/// Which of an endpoint's deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct WebhookFilter {
    pub status: Option<Status>,
    pub event: Option<&'static str>,
}

/// Up to `rows` deliveries to an endpoint with message ids below `below` and from `from` on, newest first, each with
/// its last call.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. `Error::Internal` for a status that this program does not
/// know.
pub async fn of_endpoint(
    db: impl Db<'_>,
    keyring: &Keyring,
    endpoint: &Endpoint,
    filter: &WebhookFilter,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<Webhook>> {
    let found = sqlx::query_file!(
        "sql/delivery/of_endpoint.sql",
        endpoint.partner_id.0,
        endpoint.shard,
        endpoint.endpoint_id.to_string(),
        below.0,
        from.0,
        filter.status.map(Status::as_str),
        filter.event,
        rows,
    );
    let webhook = found.fetch_all(db).await?.into_iter().map(|r| {
        let message_id = Tsid(r.message_id);
        let call = (r.attempt, r.outcome, r.called_at);
        let last = if let (Some(attempt), Some(outcome), Some(called_at)) = call {
            let (ended_at, code, reason) = (r.ended_at, r.code, r.error);
            let (detail, provider_ref) = (r.answer, r.provider_ref);
            Some(Call { attempt, outcome, called_at, ended_at, code, reason, detail, provider_ref })
        } else {
            None
        };
        Ok(Webhook {
            message_id,
            no: r.no,
            telling: Telling::read(keyring, message_id, r.about.map_or(message_id, Tsid), r.kind, &r.detail, r.content),
            status: word(&r.status, "status")?,
            reason: r.reason,
            ready_at: r.ready_at,
            settled_at: r.settled_at,
            created_at: r.created_at,
            calls: r.calls,
            last,
        })
    });
    webhook.collect()
}

/// A notice of a message, on its way to an endpoint.
#[derive(Debug, Clone)]
pub struct WebhookMessage {
    pub message_id: Tsid,
    pub no: i16,
    pub event: String,
    /// The endpoint's id.
    pub recipient: String,
    pub status: Status,
    pub reason: Option<String>,
    pub ready_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
}

/// Up to `rows` webhooks that tell of a partner's message, oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. `Error::Internal` for a status that this program does not
/// know.
pub async fn webhooks_of_message(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    rows: i64,
) -> Result<Vec<WebhookMessage>> {
    let found = sqlx::query_file!("sql/delivery/webhooks_of_message.sql", partner_id.0, shard, message_id.0, rows);
    let notice = found.fetch_all(db).await?.into_iter().map(|r| {
        Ok(WebhookMessage {
            message_id: Tsid(r.message_id),
            no: r.no,
            event: r.kind,
            recipient: r.recipient,
            status: word(&r.status, "status")?,
            reason: r.reason,
            ready_at: r.ready_at,
            created_at: r.created_at,
        })
    });
    notice.collect()
}

/// The events of one message to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence {
    pub shard: i16,
    /// The message that they tell of.
    pub about: Tsid,
    /// The endpoint.
    pub recipient: String,
}

/// A webhook of a sequence that has not ended.
pub struct OpenWebhook {
    pub about: Tsid,
    pub recipient: String,
    /// Of the message that tells.
    pub message_id: Tsid,
}

/// How far the clocks of processes may be apart: a webhook's id may be older by so much than that of the message it
/// tells of.
const CLOCKS_APART: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// The first webhooks of each sequence that have not ended, in order, up to the number that stands with it. `last`:
/// later messages are not looked at.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn sequences(db: impl Db<'_>, wanted: &[(Sequence, i64)], last: Tsid) -> Result<Vec<OpenWebhook>> {
    let rows = sqlx::query_file!(
        "sql/delivery/sequences.sql",
        &wanted.iter().map(|(s, _)| s.shard).collect::<Vec<_>>(),
        &wanted.iter().map(|(s, _)| s.about.0).collect::<Vec<_>>(),
        &wanted.iter().map(|(s, _)| s.recipient.clone()).collect::<Vec<_>>(),
        &wanted.iter().map(|(_, take)| *take).collect::<Vec<_>>(),
        Tsid::span(CLOCKS_APART),
        last.0,
    )
    .fetch_all(db)
    .await?;
    let row = rows.into_iter().map(|r| OpenWebhook {
        about: Tsid(r.about),
        recipient: r.recipient,
        message_id: Tsid(r.message_id),
    });
    Ok(row.collect())
}

/// Makes webhooks PENDING that wait at the head of the sequences of these, which ended: of each sequence up to the
/// number that stands with it. Rows locked by other transactions are skipped. Returns shard and lane of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn release_next(
    db: impl Db<'_>,
    ended: &[(DeliveryKey, i64)],
    now: DateTime<Utc>,
) -> Result<Vec<(i16, Lane)>> {
    let Some(keys) = Keys::of(ended.iter().map(|(key, _)| *key)) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/delivery/release_next.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &ended.iter().map(|(_, take)| *take).collect::<Vec<_>>(),
        READY_WHEN_PREDECESSOR_ENDS,
        now,
        keys.low,
        keys.high,
        Status::Scheduled.as_str(),
        Tsid::span(CLOCKS_APART),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.shard, Lane(r.lane))).collect())
}

/// Behind which sequence a walk over all that are open goes on.
pub type SequencePosition = (i16, Tsid);

/// Looks at the next `rows` open webhooks. Returns those that wait for one before them in their sequence although there
/// is none (their worker was lost between its end and the release of the next), and where to go on; none at the end.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn stalled(
    db: impl Db<'_>,
    behind: SequencePosition,
    rows: i64,
) -> Result<(Vec<DeliveryKey>, Option<SequencePosition>)> {
    let found = sqlx::query_file!("sql/delivery/stalled.sql", behind.0, behind.1.0, rows, READY_WHEN_PREDECESSOR_ENDS)
        .fetch_all(db)
        .await?;
    let next = found.last().map(|r| (r.shard, Tsid(r.about)));
    Ok((found.iter().filter(|r| r.stalled).map(|r| key(r.shard, r.message_id, r.no)).collect(), next))
}

/// Adds the message that they tell of to up to `rows` open webhooks that an older program wrote without it. Returns to
/// how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn fill_about(db: impl Db<'_>, shards: &[i16], rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/delivery/fill_about.sql", shards, rows).execute(db).await?.rows_affected())
}
