//! Webhooks: deliveries to endpoints, their order in sequences, and those that are parked.

use chrono::{DateTime, Utc};

use crate::crypt::Keyring;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, READY_WHEN_PREDECESSOR_ENDS, READY_WHEN_RESUMED, Status};
use crate::model::endpoint::Endpoint;
use crate::model::lane::Lane;
use crate::store::keys::{KeyColumns, key};
use crate::store::message::WebhookEvent;
use crate::store::{Db, parse_word};

/// Makes up to `rows` deliveries to an endpoint (`recipient`) PENDING that are SCHEDULED at `since` (`PARKED` or
/// `BEHIND`), ready from `now` on. Rows locked by others are skipped. Returns shard and lane of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
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

/// Where a walk along an endpoint's deliveries stands.
#[derive(Debug, Clone, Copy)]
pub struct EndpointPosition {
    /// The last delivery read.
    pub after: (Tsid, i16),
    /// Message ids below this.
    pub below: Tsid,
}

/// Result of one step of `retry_now`.
pub struct RetriedNow {
    /// Shard and lane of each delivery made PENDING.
    pub places: Vec<(i16, Lane)>,
    /// The last delivery read, to continue after it; None at the end.
    pub next: Option<(Tsid, i16)>,
}

/// Reads an endpoint's next `look` deliveries and makes up to `rows` (at least one) that wait for a retry PENDING.
/// Their attempts and retry schedule stay as they are. Rows locked by others are skipped.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn retry_now(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    along: EndpointPosition,
    (look, rows): (i64, usize),
    now: DateTime<Utc>,
) -> Result<RetriedNow> {
    let most = i64::try_from(rows).unwrap_or(i64::MAX);
    let ((message, no), below) = (along.after, along.below.0);
    let found = sqlx::query_file!(
        "sql/delivery/retry_now.sql",
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
    Ok(RetriedNow { places, next })
}

/// Counts the deliveries that wait for a retry among an endpoint's next `look` deliveries. Returns the count, and the
/// last delivery read, to continue after it; None at the end.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_retrying(
    db: impl Db<'_>,
    (shard, recipient): (i16, &str),
    along: EndpointPosition,
    look: i64,
    now: DateTime<Utc>,
) -> Result<(i64, Option<(Tsid, i16)>)> {
    let ((message, no), below) = (along.after, along.below.0);
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
    Ok((found.map_or(0, |r| r.retrying), next))
}

/// A webhook with its last call.
#[derive(Debug, Clone)]
pub struct WebhookRow {
    pub message_id: Tsid,
    pub no: i16,
    pub event: WebhookEvent,
    pub status: Status,
    pub reason: Option<String>,
    pub ready_at: DateTime<Utc>,
    pub settled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// Number of calls to the endpoint.
    pub calls: i64,
    pub last_call: Option<WebhookCall>,
}

/// A call to an endpoint.
#[derive(Debug, Clone)]
pub struct WebhookCall {
    pub attempt: i16,
    pub outcome: String,
    pub called_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// The HTTP status or our code of a failed call.
    pub code: Option<String>,
    pub reason: Option<String>,
    /// The answer's body, cut.
    pub detail: Option<String>,
    /// The HTTP status of an accepted call.
    pub provider_ref: Option<String>,
}

/// Which of an endpoint's deliveries to list; None does not filter.
#[derive(Debug, Clone, Default)]
pub struct WebhookFilter {
    pub status: Option<Status>,
    pub event: Option<&'static str>,
}

/// Up to `rows` deliveries to an endpoint with message ids below `below` and from `from` on, newest first, each with
/// its event and its last call. Erased or unreadable events come without an event id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn of_endpoint(
    db: impl Db<'_>,
    keyring: &Keyring,
    endpoint: &Endpoint,
    filter: &WebhookFilter,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<WebhookRow>> {
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
            Some(WebhookCall { attempt, outcome, called_at, ended_at, code, reason, detail, provider_ref })
        } else {
            None
        };
        Ok(WebhookRow {
            message_id,
            no: r.no,
            event: WebhookEvent::read(
                keyring,
                message_id,
                r.about.map_or(message_id, Tsid),
                r.kind,
                &r.detail,
                r.content,
            ),
            status: parse_word(&r.status, "status")?,
            reason: r.reason,
            ready_at: r.ready_at,
            settled_at: r.settled_at,
            created_at: r.created_at,
            calls: r.calls,
            last_call: last,
        })
    });
    webhook.collect()
}

/// A webhook that reports on a message.
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

/// Up to `rows` webhooks that report on a partner's message, oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
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
            status: parse_word(&r.status, "status")?,
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
    /// The message reported on.
    pub about: Tsid,
    /// The endpoint's id.
    pub recipient: String,
}

/// A webhook of a sequence that has not ended.
pub struct OpenWebhook {
    pub about: Tsid,
    pub recipient: String,
    /// Id of the webhook message itself.
    pub message_id: Tsid,
}

/// How far the clocks of processes may differ: a webhook's id may be older by this much than the id of the message it
/// reports on.
const CLOCKS_APART: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// Open webhooks of each sequence in the order in which they were written, up to the given number of each. Messages
/// with an id above `last` are not looked at.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
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

/// Makes waiting webhooks at the head of the sequences of `ended` PENDING, of each sequence up to the given number, and
/// none after the first that waits for something else. Rows locked by others are skipped. Returns shard and lane of
/// each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn release_next(
    db: impl Db<'_>,
    ended: &[(DeliveryKey, i64)],
    now: DateTime<Utc>,
) -> Result<Vec<(i16, Lane)>> {
    let Some(keys) = KeyColumns::of(ended.iter().map(|(key, _)| *key)) else { return Ok(Vec::new()) };
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

/// Where a walk over open sequences stands: (shard, message reported on).
pub type SequencePosition = (i16, Tsid);

/// Reads the next `rows` open webhooks. Returns those that wait behind another one of their sequence although none is
/// open before them (a worker was lost between the end of one and the release of the next), and where to continue; None
/// at the end.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
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

/// Fills `about` and `told_at` of up to `rows` open webhooks that an older version wrote without them. Returns how
/// many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn backfill_about(db: impl Db<'_>, shards: &[i16], rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/delivery/backfill_about.sql", shards, rows).execute(db).await?.rows_affected())
}
