//! Settling: writes the next status of deliveries with attempts, events, statistics and webhooks; and redrives dead
//! letters.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryFacts, DeliveryKey, OutcomeKind, READY_WHEN_ISOLATED, Status, Transition};
use crate::model::lane::Lane;
use crate::model::retry::WEBHOOK_ATTEMPTS;
use crate::model::stats::{Counts, count_delta};
use crate::store::Db;
use crate::store::keys::{KeyColumns, key};
use crate::store::redrive::RedriveCandidate;

/// A step to write, fenced by the status and attempt it started from.
#[derive(Debug, Clone)]
pub struct Settle {
    pub key: DeliveryKey,
    pub lane: Lane,
    /// The delivery as it was when the step was decided; its status and attempt are the fence.
    pub head: DeliveryFacts,
    pub step: Transition,
    /// The provider that had it; None leaves the stored one.
    pub provider: Option<String>,
    /// The attempt that ends with this step; None when a waiting delivery is canceled or expires.
    pub ended_attempt: Option<EndedAttempt>,
    /// Id of the message that carries the step's event to endpoints; used if an endpoint subscribes to it.
    pub event_message_id: Tsid,
    /// Until when a receipt is awaited, if one is.
    pub receipt_due: Option<DateTime<Utc>>,
    /// Webhooks of its sequence that may be released when it ends; 0 if it is in no sequence.
    pub release_limit: i64,
    /// Set if this step sets the delivery apart as a suspect.
    pub suspect: Option<SuspectEntry>,
    /// The partner, where the message was loaded.
    pub partner_id: Option<Tsid>,
}

impl Settle {
    /// Whether it is a send from which nothing else follows, unless the partner has endpoints: the provider accepted
    /// the delivery, no receipt is awaited, no fallback stands by, no webhook waits behind it, and the attempt has no
    /// row yet. Then `settle_sends` can write it.
    pub fn is_plain_send(&self) -> bool {
        let Settle { lane, head, step, provider, ended_attempt, receipt_due, release_limit, suspect, .. } = self;
        let plain_attempt = ended_attempt.as_ref().is_some_and(|a| {
            a.outcome == OutcomeKind::Accepted
                && !a.has_in_flight_row
                && a.called_at.is_some()
                && a.code.is_none()
                && a.detail.is_none()
        });
        plain_attempt
            && provider.is_some()
            && head.status == Status::Processing
            && !head.has_fallback
            && step.status == Status::Sent
            && step.reason.is_none()
            && step.ready_at.is_none()
            && !step.refund
            && !step.possibly_sent
            && receipt_due.is_none()
            && suspect.is_none()
            && *release_limit == 0
            && !lane.channel().calls_partner_servers()
    }

    /// The same step, except that a delivery that would wait after it is set apart: it is claimed alone from the step's
    /// `ready_at` on. `deaths` counts the workers lost while they held it. A step that ends the delivery is unchanged.
    pub fn as_suspect(mut self, deaths: i16) -> Settle {
        if let Some(ready_at) = self.step.ready_at {
            self.suspect = Some(SuspectEntry { lost_workers: deaths, ready_at });
            (self.step.status, self.step.ready_at) = (Status::Scheduled, Some(READY_WHEN_ISOLATED));
        }
        self
    }
}

/// The row of a delivery that is set apart because a worker was lost while it held it.
#[derive(Debug, Clone, Copy)]
pub struct SuspectEntry {
    /// Workers lost while they held it.
    pub lost_workers: i16,
    /// From when it may be claimed, alone.
    pub ready_at: DateTime<Utc>,
}

/// An attempt that ends.
#[derive(Debug, Clone)]
pub struct EndedAttempt {
    pub outcome: OutcomeKind,
    /// Its beginning was recorded: the row exists and is updated instead of inserted.
    pub has_in_flight_row: bool,
    pub worker: Tsid,
    pub claimed_at: DateTime<Utc>,
    pub called_at: Option<DateTime<Utc>>,
    /// The provider's own code, or ours.
    pub code: Option<String>,
    /// The provider's text, cut.
    pub detail: Option<String>,
    pub provider_ref: Option<String>,
}

/// A step that kept its fence and was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledStep {
    pub key: DeliveryKey,
    /// As it is now; the step may have been decided before the request.
    pub cancel_requested: bool,
    /// An endpoint subscribes to its event, so a webhook was written.
    pub has_subscribers: bool,
}

/// Writes steps with their attempts, events, statistics and webhooks, in one statement. `settles` holds each key once,
/// sorted by key, so that two batches cannot deadlock. Returns the steps that kept their fence; the others wrote
/// nothing.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out. All steps were written, or none.
pub async fn settle(db: impl Db<'_>, settles: &[&Settle], now: DateTime<Utc>) -> Result<Vec<SettledStep>> {
    let Some(keys) = KeyColumns::of(settles.iter().map(|s| s.key)) else { return Ok(Vec::new()) };
    let text = |f: fn(&Settle) -> Option<&str>| settles.iter().map(|s| f(s).map(str::to_owned)).collect::<Vec<_>>();
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> {
        settles.iter().map(|s| part(count_delta(s.head.status, s.step.status))).collect()
    };
    let rows = sqlx::query_file!(
        "sql/delivery/settle.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &settles.iter().map(|s| s.head.attempt).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.head.status.as_str().to_owned()).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.step.status.as_str().to_owned()).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.step.ready_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &settles.iter().map(|s| s.step.possibly_sent).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.step.refund).collect::<Vec<_>>(),
        &text(|s| s.step.status.event_kind().map(|e| e.as_str())) as &[Option<String>],
        &text(|s| s.step.reason) as &[Option<String>],
        &text(|s| s.provider.as_deref()) as &[Option<String>],
        &text(|s| s.ended_attempt.as_ref().map(|t| t.outcome.as_str())) as &[Option<String>],
        &settles.iter().map(|s| s.ended_attempt.as_ref().map(|t| t.worker.0)).collect::<Vec<_>>() as &[Option<i64>],
        &settles.iter().map(|s| s.ended_attempt.as_ref().map(|t| t.claimed_at)).collect::<Vec<_>>()
            as &[Option<DateTime<Utc>>],
        &settles.iter().map(|s| s.ended_attempt.as_ref().and_then(|t| t.called_at)).collect::<Vec<_>>()
            as &[Option<DateTime<Utc>>],
        &text(|s| s.ended_attempt.as_ref().and_then(|t| t.code.as_deref())) as &[Option<String>],
        &text(|s| s.ended_attempt.as_ref().and_then(|t| t.detail.as_deref())) as &[Option<String>],
        &text(|s| s.ended_attempt.as_ref().and_then(|t| t.provider_ref.as_deref())) as &[Option<String>],
        &settles.iter().map(|s| s.ended_attempt.as_ref().is_some_and(|t| t.has_in_flight_row)).collect::<Vec<_>>(),
        &counts(|c| c.total),
        &counts(|c| c.success),
        &counts(|c| c.failed),
        &settles.iter().map(|s| s.event_message_id.0).collect::<Vec<_>>(),
        &settles.iter().map(|s| s.receipt_due).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        now,
        keys.low,
        keys.high,
        WEBHOOK_ATTEMPTS,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| SettledStep {
            key: key(r.shard, r.message_id, r.no),
            cancel_requested: r.cancel_requested,
            has_subscribers: r.has_subscribers,
        })
        .collect())
}

/// Writes plain sends (`Settle::is_plain_send`), each with its attempt and event in the delivery's own row, in one
/// statement. `sends` holds each key once, sorted by key. Returns those written. The others lost their fence, or their
/// partner has an endpoint: `settle` tells which, and writes the latter.
///
/// # Errors
/// As `settle`.
pub async fn settle_sends(db: impl Db<'_>, sends: &[&Settle], now: DateTime<Utc>) -> Result<Vec<SettledStep>> {
    let Some(keys) = KeyColumns::of(sends.iter().map(|s| s.key)) else { return Ok(Vec::new()) };
    let attempts = || sends.iter().filter_map(|s| s.ended_attempt.as_ref());
    let rows = sqlx::query_file!(
        "sql/delivery/settle_sends.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &sends.iter().map(|s| s.head.attempt).collect::<Vec<_>>(),
        &sends.iter().map(|s| s.provider.clone()).collect::<Vec<_>>() as &[Option<String>],
        &attempts().map(|a| a.worker.0).collect::<Vec<_>>(),
        &attempts().map(|a| a.claimed_at).collect::<Vec<_>>(),
        &attempts().map(|a| a.called_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &attempts().map(|a| a.provider_ref.clone()).collect::<Vec<_>>() as &[Option<String>],
        now,
        keys.low,
        keys.high,
        Status::Processing.as_str(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| SettledStep {
            key: key(r.shard, r.message_id, r.no),
            cancel_requested: r.cancel_requested,
            has_subscribers: false,
        })
        .collect())
}

/// Moves the records of sends out of these locked deliveries' own rows into attempts and events, before anything else
/// happens to them. Readers of the history see no change. `keys` are sorted.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub(super) async fn move_send_records(db: impl Db<'_>, keys: &[DeliveryKey]) -> Result<()> {
    let Some(keys) = KeyColumns::of(keys.iter().copied()) else { return Ok(()) };
    sqlx::query_file!(
        "sql/delivery/move_send_records.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        keys.low,
        keys.high,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A dead letter that is PENDING again.
#[derive(Debug, Clone, Copy)]
pub struct RedrivenDelivery {
    pub key: DeliveryKey,
    /// The overflow lane of its priority.
    pub lane: Lane,
    /// Attempts spent before the redrive.
    pub attempt: i16,
    /// Number of the event 'delivery.redriven'.
    pub event_seq: i16,
}

/// Makes dead letters PENDING again, each with its new `max_attempts`. `dead` holds each key once, sorted by key.
/// Returns those that had not changed since they were read; the others are left as they are.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn redrive(
    db: impl Db<'_>,
    dead: &[(RedriveCandidate, i16)],
    now: DateTime<Utc>,
) -> Result<Vec<RedrivenDelivery>> {
    let Some(keys) = KeyColumns::of(dead.iter().map(|(d, _)| d.key)) else { return Ok(Vec::new()) };
    let counts = |part: fn(Counts) -> i16| -> Vec<i16> {
        dead.iter().map(|(d, _)| part(count_delta(d.status, Status::Pending))).collect()
    };
    let rows = sqlx::query_file!(
        "sql/delivery/redrive.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &dead.iter().map(|(d, _)| d.event_seq).collect::<Vec<_>>(),
        &dead.iter().map(|(d, _)| d.status.as_str().to_owned()).collect::<Vec<_>>(),
        &dead.iter().map(|(_, attempts)| *attempts).collect::<Vec<_>>(),
        &dead.iter().map(|(d, _)| d.settled_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &counts(|c| c.total),
        &counts(|c| c.success),
        &counts(|c| c.failed),
        now,
        keys.low,
        keys.high,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| RedrivenDelivery {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            attempt: r.attempt,
            event_seq: r.event_seq,
        })
        .collect())
}
