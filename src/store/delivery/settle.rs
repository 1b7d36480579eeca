//! Steps: the outcome of an attempt, or of waiting, written with its attempt and event; and dead letters that go again.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryFacts, DeliveryKey, OutcomeKind, READY_WHEN_ISOLATED, Status, Transition};
use crate::model::lane::Lane;
use crate::model::retry::WEBHOOK_ATTEMPTS;
use crate::model::stats::{Counts, count_delta};
use crate::store::Db;
use crate::store::keys::{Keys, key};
use crate::store::redrive::Dead;

/// One step to write, fenced by the status and attempt it started from.
#[derive(Debug, Clone)]
pub struct Settle {
    pub key: DeliveryKey,
    pub lane: Lane,
    /// As it was when the step was decided; its status and attempt are the fence.
    pub head: DeliveryFacts,
    pub step: Transition,
    pub provider: Option<String>,
    /// The attempt that ends with this step; none when a waiting delivery is canceled or expires.
    pub tried: Option<Tried>,
    /// Id of the message that tells of the step's event, if somebody wants to hear of it.
    pub notice_id: Tsid,
    /// Until when a receipt is waited for, if it is.
    pub receipt_due: Option<DateTime<Utc>>,
    /// How many webhooks of its sequence may go at once when it ends; 0: it is in none.
    pub followers: i64,
    /// Its delivery is set apart by this step.
    pub apart: Option<Apart>,
}

impl Settle {
    /// The same; but if its delivery waits after it, it waits apart from all others.
    pub fn set_apart(mut self, deaths: i16) -> Settle {
        if let Some(ready_at) = self.step.ready_at {
            self.apart = Some(Apart { deaths, ready_at });
            (self.step.status, self.step.ready_at) = (Status::Scheduled, Some(READY_WHEN_ISOLATED));
        }
        self
    }
}

/// How a delivery waits whose worker was lost.
#[derive(Debug, Clone, Copy)]
pub struct Apart {
    /// Workers that were lost while they held it.
    pub deaths: i16,
    /// From when it may be claimed, alone.
    pub ready_at: DateTime<Utc>,
}

/// An attempt that ends.
#[derive(Debug, Clone)]
pub struct Tried {
    pub outcome: OutcomeKind,
    /// Its beginning is on record.
    pub begun: bool,
    pub worker: Tsid,
    pub claimed_at: DateTime<Utc>,
    pub called_at: Option<DateTime<Utc>>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub provider_ref: Option<String>,
}

/// A step that kept its fence and was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Won {
    pub key: DeliveryKey,
    /// By now; its step may have been decided before.
    pub cancel_requested: bool,
    /// Endpoints are told of its event.
    pub heard: bool,
}

/// Writes steps with their attempts and events, in one statement. `settles` holds each key once, sorted by key: two
/// batches then never wait for each other in a ring. Returns the steps that kept their fence; the others wrote nothing.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out. All steps are written, or none.
pub async fn settle(db: impl Db<'_>, settles: &[Settle], now: DateTime<Utc>) -> Result<Vec<Won>> {
    let Some(keys) = Keys::of(settles.iter().map(|s| s.key)) else { return Ok(Vec::new()) };
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
        &text(|s| s.tried.as_ref().map(|t| t.outcome.as_str())) as &[Option<String>],
        &settles.iter().map(|s| s.tried.as_ref().map(|t| t.worker.0)).collect::<Vec<_>>() as &[Option<i64>],
        &settles.iter().map(|s| s.tried.as_ref().map(|t| t.claimed_at)).collect::<Vec<_>>()
            as &[Option<DateTime<Utc>>],
        &settles.iter().map(|s| s.tried.as_ref().and_then(|t| t.called_at)).collect::<Vec<_>>()
            as &[Option<DateTime<Utc>>],
        &text(|s| s.tried.as_ref().and_then(|t| t.code.as_deref())) as &[Option<String>],
        &text(|s| s.tried.as_ref().and_then(|t| t.detail.as_deref())) as &[Option<String>],
        &text(|s| s.tried.as_ref().and_then(|t| t.provider_ref.as_deref())) as &[Option<String>],
        now,
        keys.low,
        keys.high,
        &settles.iter().map(|s| s.tried.as_ref().is_some_and(|t| t.begun)).collect::<Vec<_>>(),
        &counts(|c| c.total),
        &counts(|c| c.success),
        &counts(|c| c.failed),
        &settles.iter().map(|s| s.notice_id.0).collect::<Vec<_>>(),
        WEBHOOK_ATTEMPTS,
        &settles.iter().map(|s| s.receipt_due).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Won { key: key(r.shard, r.message_id, r.no), cancel_requested: r.cancel_requested, heard: r.heard })
        .collect())
}

/// A dead letter that is PENDING again.
#[derive(Debug, Clone, Copy)]
pub struct Redriven {
    pub key: DeliveryKey,
    pub lane: Lane,
    pub attempt: i16,
    pub event_seq: i16,
}

/// Makes dead letters PENDING again, each with the number of attempts that it may have then. `dead` holds each key
/// once, sorted by key. Returns those that have not changed since they were read; the others are left as they are.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn redrive(db: impl Db<'_>, dead: &[(Dead, i16)], now: DateTime<Utc>) -> Result<Vec<Redriven>> {
    let Some(keys) = Keys::of(dead.iter().map(|(d, _)| d.key)) else { return Ok(Vec::new()) };
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
        .map(|r| Redriven {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            attempt: r.attempt,
            event_seq: r.event_seq,
        })
        .collect())
}
