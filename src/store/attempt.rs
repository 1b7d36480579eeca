//! Attempts: calls to providers, one row per attempt of a delivery.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::delivery::{EndedAttempt, Settle};
use super::keys::{KeyColumns, key};
use super::{Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, READY_WHEN_RESUMED, Status};
use crate::model::receipt::{AttemptEvidence as Told, ReceiptOutcome};

/// Records that calls begin, before they are made: `calls` holds key, attempt and provider of each, all claimed by
/// `worker` at `claimed_at`. Returns the keys that may be called: those still held under that attempt whose lease lasts
/// for at least `lasting` more, by the database's clock.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. The rows may have been written,
/// so make no call and treat each as possibly begun.
pub async fn record_begin(
    db: impl Db<'_>,
    calls: &[(DeliveryKey, i16, String)],
    worker: Tsid,
    claimed_at: DateTime<Utc>,
    now: DateTime<Utc>,
    lasting: Duration,
) -> Result<Vec<DeliveryKey>> {
    let Some(keys) = KeyColumns::of(calls.iter().map(|c| c.0)) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/attempt/record_begin.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &calls.iter().map(|c| c.1).collect::<Vec<_>>(),
        worker.0,
        claimed_at,
        now,
        &calls.iter().map(|c| c.2.clone()).collect::<Vec<_>>(),
        keys.low,
        keys.high,
        Status::Processing.as_str(),
        lasting.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| key(r.shard, r.message_id, r.no)).collect())
}

/// The time since when each of these deliveries is being tried: its first call, or its last redrive if that is later.
/// Deliveries that were neither called nor redriven are left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn tried_since(db: impl Db<'_>, keys: &[DeliveryKey]) -> Result<HashMap<DeliveryKey, DateTime<Utc>>> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(HashMap::new()) };
    let rows = sqlx::query_file!("sql/attempt/tried_since.sql", &keys.shards, &keys.message_ids, &keys.nos,)
        .fetch_all(db)
        .await?;
    Ok(rows.into_iter().filter_map(|r| Some((key(r.shard, r.message_id, r.no), r.since?))).collect())
}

/// Records outcomes that arrived after their delivery was taken back, on their own attempts, if those are still marked
/// as lost. `late` are steps that lost their fence; steps without an ended attempt are ignored. Returns how many
/// attempts were updated.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_late_outcomes(db: impl Db<'_>, late: &[&Settle], now: DateTime<Utc>) -> Result<u64> {
    let late: Vec<(&Settle, &EndedAttempt)> =
        late.iter().filter_map(|s| Some((*s, s.ended_attempt.as_ref()?))).collect();
    let Some(keys) = KeyColumns::of(late.iter().map(|l| l.0.key)) else { return Ok(0) };
    let text =
        |f: fn(&EndedAttempt) -> Option<&str>| late.iter().map(|l| f(l.1).map(str::to_owned)).collect::<Vec<_>>();
    let query = sqlx::query_file!(
        "sql/attempt/record_late_outcomes.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &late.iter().map(|l| l.0.head.attempt).collect::<Vec<_>>(),
        &late.iter().map(|l| l.1.outcome.as_str().to_owned()).collect::<Vec<_>>(),
        &late.iter().map(|l| l.1.called_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &late.iter().map(|l| l.0.provider.clone()).collect::<Vec<_>>() as &[Option<String>],
        &text(|t| t.code.as_deref()) as &[Option<String>],
        &text(|t| t.detail.as_deref()) as &[Option<String>],
        &text(|t| t.provider_ref.as_deref()) as &[Option<String>],
        now,
    );
    Ok(query.execute(db).await?.rows_affected())
}

/// Attempts of these deliveries as the evaluation of receipts needs them, ordered by attempt.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// outcome that this program does not know.
pub async fn of_deliveries(db: impl Db<'_>, keys: &[DeliveryKey]) -> Result<HashMap<DeliveryKey, Vec<Told>>> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(HashMap::new()) };
    let rows = sqlx::query_file!(
        "sql/attempt/of_deliveries.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        keys.low,
        keys.high,
    )
    .fetch_all(db)
    .await?;
    let mut all: HashMap<DeliveryKey, Vec<Told>> = HashMap::with_capacity(keys.nos.len());
    for r in rows {
        let receipt = r.receipt.map(|text| parse_word(&text, "outcome of a receipt")).transpose()?;
        all.entry(key(r.shard, r.message_id, r.no)).or_default().push(Told {
            attempt: r.attempt,
            outcome: parse_word(&r.outcome, "outcome")?,
            provider: r.provider,
            receipt,
            reason: r.receipt_reason,
        });
    }
    Ok(all)
}

/// The furthest outcome that receipts report for an attempt.
#[derive(Debug, Clone)]
pub struct AttemptReceipt {
    pub key: DeliveryKey,
    pub attempt: i16,
    pub outcome: ReceiptOutcome,
    /// Class of the error, a stable word.
    pub reason: Option<String>,
    /// The provider's own code.
    pub code: Option<String>,
    /// When the provider says it happened, or when the receipt arrived.
    pub at: DateTime<Utc>,
    pub provider: String,
}

/// Writes receipts onto attempts, each attempt once. The caller has locked their deliveries.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn apply_receipts(db: impl Db<'_>, all: &[AttemptReceipt]) -> Result<()> {
    let Some(keys) = KeyColumns::of(all.iter().map(|r| r.key)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/attempt/apply_receipts.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|r| r.attempt).collect::<Vec<_>>(),
        &all.iter().map(|r| r.outcome.as_str().to_owned()).collect::<Vec<_>>(),
        &all.iter().map(|r| r.reason.clone()).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|r| r.code.clone()).collect::<Vec<_>>() as &[Option<String>],
        &all.iter().map(|r| r.at).collect::<Vec<_>>(),
        &all.iter().map(|r| r.provider.clone()).collect::<Vec<_>>(),
        keys.low,
        keys.high,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An attempt as the API shows it.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    pub no: i16,
    pub attempt: i16,
    pub outcome: String,
    /// The outcome arrived after the lease had ended.
    pub late: bool,
    pub worker: Tsid,
    pub claimed_at: DateTime<Utc>,
    pub called_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// When the delivery may be tried again; none after the last attempt and while parked.
    pub next_at: Option<DateTime<Utc>>,
    pub provider: Option<String>,
    /// Stable word of `DELIVERY_REASONS` or of `model::retry`.
    pub reason: Option<String>,
    /// The provider's own code.
    pub code: Option<String>,
    pub detail: Option<String>,
    pub provider_ref: Option<String>,
    /// Furthest outcome that receipts report, with reason, the provider's code, and time.
    pub receipt: Option<String>,
    pub receipt_reason: Option<String>,
    pub receipt_code: Option<String>,
    pub receipt_at: Option<DateTime<Utc>>,
}

/// Attempts of a partner's message, ordered by delivery and attempt; with `no` those of one delivery. Empty if the
/// message is not the partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_message(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    no: Option<i16>,
) -> Result<Vec<AttemptRow>> {
    let rows = sqlx::query_file!("sql/attempt/of_message.sql", partner_id.0, shard, message_id.0, no);
    let rows = rows.fetch_all(db).await?.into_iter();
    Ok(rows
        .map(|r| AttemptRow {
            no: r.no,
            attempt: r.attempt,
            outcome: r.outcome,
            late: r.late,
            worker: Tsid(r.worker),
            claimed_at: r.claimed_at,
            called_at: r.called_at,
            ended_at: r.ended_at,
            next_at: r.next_at.filter(|at| *at < READY_WHEN_RESUMED),
            provider: r.provider,
            reason: r.reason,
            code: r.code,
            detail: r.detail,
            provider_ref: r.provider_ref,
            receipt: r.receipt,
            receipt_reason: r.receipt_reason,
            receipt_code: r.receipt_code,
            receipt_at: r.receipt_at,
        })
        .collect())
}

/// An attempt in which the provider was called.
#[derive(Debug, Clone)]
pub struct CallRow {
    pub message_id: i64,
    pub no: i16,
    pub attempt: i16,
    pub outcome: String,
    pub called_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub next_at: Option<DateTime<Utc>>,
    pub reason: Option<String>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub provider_ref: Option<String>,
}

/// Attempts of these messages' deliveries in which the provider was called, ordered by message, delivery and attempt.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn calls_of_messages(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    messages: &[Tsid],
) -> Result<Vec<CallRow>> {
    let ids: Vec<i64> = messages.iter().map(|id| id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let calls =
        sqlx::query_file_as!(CallRow, "sql/attempt/calls_of_messages.sql", partner_id.0, shard, &ids, low, high);
    Ok(calls.fetch_all(db).await?)
}
