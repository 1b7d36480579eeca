//! Attempts.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::delivery::{Settle, Tried};
use super::keys::{Keys, key};
use super::{Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, READY_WHEN_RESUMED, Status};
use crate::model::receipt::{AttemptEvidence as Told, ReceiptOutcome};

/// Records that calls begin whose lease lasts for `lasting` yet; returns the keys that may be called.
pub async fn begin(
    db: impl Db<'_>,
    calls: &[(DeliveryKey, i16, String)],
    worker: Tsid,
    claimed_at: DateTime<Utc>,
    now: DateTime<Utc>,
    lasting: Duration,
) -> Result<Vec<DeliveryKey>> {
    let Some(keys) = Keys::of(calls.iter().map(|c| c.0)) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/attempt/begin.sql",
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

/// Since when these deliveries have been tried: from the first call on, or since they were last redriven.
pub async fn tried_since(db: impl Db<'_>, keys: &[DeliveryKey]) -> Result<HashMap<DeliveryKey, DateTime<Utc>>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(HashMap::new()) };
    let rows = sqlx::query_file!("sql/attempt/tried_since.sql", &keys.shards, &keys.message_ids, &keys.nos,)
        .fetch_all(db)
        .await?;
    Ok(rows.into_iter().filter_map(|r| Some((key(r.shard, r.message_id, r.no), r.since?))).collect())
}

/// Keeps outcomes whose delivery was taken back meanwhile, on their own attempts; says how many were still in doubt.
pub async fn late(db: impl Db<'_>, late: &[Settle], now: DateTime<Utc>) -> Result<u64> {
    let late: Vec<(&Settle, &Tried)> = late.iter().filter_map(|s| Some((s, s.tried.as_ref()?))).collect();
    let Some(keys) = Keys::of(late.iter().map(|l| l.0.key)) else { return Ok(0) };
    let text = |f: fn(&Tried) -> Option<&str>| late.iter().map(|l| f(l.1).map(str::to_owned)).collect::<Vec<_>>();
    let query = sqlx::query_file!(
        "sql/attempt/late.sql",
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

/// The attempts of these deliveries as receipts find them.
pub async fn of_keys(db: impl Db<'_>, keys: &[DeliveryKey]) -> Result<HashMap<DeliveryKey, Vec<Told>>> {
    let Some(keys) = Keys::of(keys.iter().copied()) else { return Ok(HashMap::new()) };
    let rows =
        sqlx::query_file!("sql/attempt/of_keys.sql", &keys.shards, &keys.message_ids, &keys.nos, keys.low, keys.high,)
            .fetch_all(db)
            .await?;
    let mut all: HashMap<DeliveryKey, Vec<Told>> = HashMap::with_capacity(keys.nos.len());
    for r in rows {
        let receipt = r.receipt.map(|text| word(&text, "outcome of a receipt")).transpose()?;
        all.entry(key(r.shard, r.message_id, r.no)).or_default().push(Told {
            attempt: r.attempt,
            outcome: word(&r.outcome, "outcome")?,
            provider: r.provider,
            receipt,
            reason: r.receipt_reason,
        });
    }
    Ok(all)
}

/// The most that receipts said of an attempt.
#[derive(Debug, Clone)]
pub struct Received {
    pub key: DeliveryKey,
    pub attempt: i16,
    pub outcome: ReceiptOutcome,
    pub reason: Option<String>,
    pub code: Option<String>,
    pub at: DateTime<Utc>,
    pub provider: String,
}

/// Writes it. Each attempt once; their deliveries are held.
pub async fn receive(db: impl Db<'_>, all: &[Received]) -> Result<()> {
    let Some(keys) = Keys::of(all.iter().map(|r| r.key)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/attempt/receive.sql",
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

/// An attempt as people look at it.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    pub no: i16,
    pub attempt: i16,
    pub outcome: String,
    pub late: bool,
    pub worker: Tsid,
    pub claimed_at: DateTime<Utc>,
    pub called_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub next_at: Option<DateTime<Utc>>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub provider_ref: Option<String>,
    /// The most that receipts said of it, with the provider's code, and when it was.
    pub receipt: Option<String>,
    pub receipt_reason: Option<String>,
    pub receipt_code: Option<String>,
    pub receipt_at: Option<DateTime<Utc>>,
}

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

/// A call to a provider, of one of several messages.
#[derive(Debug, Clone)]
pub struct Call {
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

/// The calls of these messages' deliveries.
pub async fn of_messages(db: impl Db<'_>, partner_id: Tsid, shard: i16, messages: &[Tsid]) -> Result<Vec<Call>> {
    let ids: Vec<i64> = messages.iter().map(|id| id.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let calls = sqlx::query_file_as!(Call, "sql/attempt/of_messages.sql", partner_id.0, shard, &ids, low, high);
    Ok(calls.fetch_all(db).await?)
}
