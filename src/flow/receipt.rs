//! Receipts: stored before the provider's callback is answered, and applied soon after. The effect follows from all
//! evidence about a delivery (`model::receipt::correction`), under its row lock: so any order and repetition of
//! receipts has the same result.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use sha2::Digest as _;

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::event::EventPayload;
use crate::model::provider_text::clean;
use crate::model::receipt::{
    AttemptEvidence, Correction, DeliveryState, NO_RECEIPT, ReceiptMatch, correction, match_receipt,
};
use crate::provider::{Account, Receipts};
use crate::shutdown::may_die_at;
use crate::store::attempt::AttemptReceipt;
use crate::store::delivery::{DeliveryHead, ReceiptUpdate};
use crate::store::receipt::{self, PendingReceipt, ReceiptResult};
use crate::store::{self, Conn};

use super::fallback::{self, FallbackReason, FallbackRequest};
use super::publish::{NewEvent, publish};

/// Stores receipts of a provider; they are durable when this returns. Returns how many were new. `origin` identifies
/// the body or slice that they come from: it must be the same when that is repeated, so that unreadable receipts, which
/// have no key of their own, are stored once, too.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit. Storing the
/// same receipts again is safe.
pub async fn save(hub: &Hub, provider: &str, receipts: Receipts, origin: &[u8]) -> Result<u64> {
    let rows = to_rows(provider, receipts, origin, hub);
    let mut new = 0;
    let mut tx = hub.store.begin().await?;
    for part in rows.chunks(limits::RECEIPTS_WRITTEN) {
        new += receipt::insert(&mut *tx, provider, part, hub.clock.now()).await?;
    }
    may_die_at("receipt.before_commit");
    tx.commit().await?;
    may_die_at("receipt.after_commit");
    Ok(new)
}

/// The rows to store, sorted by key, each key once.
fn to_rows(provider: &str, receipts: Receipts, origin: &[u8], hub: &Hub) -> Vec<receipt::NewReceipt> {
    let mut unreadable = 0;
    let read = receipts.into_iter().enumerate().map(|(n, receipt)| match receipt {
        Ok(receipt) => {
            let kept = receipt::NewReceipt::of(&receipt);
            receipt::NewReceipt {
                event_key: event_key(kept.event_key),
                provider_ref: kept.provider_ref.and_then(clean),
                code: kept.code.and_then(clean),
                detail: kept.detail.and_then(clean),
                // A time outside the range of the database must not fail the others.
                occurred_at: kept.occurred_at.filter(|at| (2000..2100).contains(&at.year())),
                ..kept
            }
        }
        Err(why) => {
            unreadable += 1;
            let digest = sha2::Sha256::new().chain_update(origin).chain_update(n.to_be_bytes()).finalize();
            receipt::NewReceipt::unreadable(data_encoding::HEXLOWER.encode(&digest), clean(why))
        }
    });
    let mut read: Vec<receipt::NewReceipt> = read.collect();
    // Keep each key once; a receipt that names its attempt wins.
    read.sort_by(|a, b| (&a.event_key, a.reference.is_none()).cmp(&(&b.event_key, b.reference.is_none())));
    read.dedup_by(|a, b| a.event_key == b.event_key);
    if unreadable > 0 {
        tracing::warn!(
            provider,
            unreadable,
            "receipts of the provider could not be read; they are stored as unreadable"
        );
        hub.metrics.receipts.with_label_values(&[provider, "unreadable"]).inc_by(unreadable);
    }
    read
}

/// A provider's key of a receipt; a long one, or one with control characters, is replaced by its digest.
fn event_key(key: String) -> String {
    if key.len() <= limits::EVENT_KEY_BYTES && !key.contains(char::is_control) {
        return key;
    }
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(key.as_bytes()))
}

/// Working state of one batch of receipts.
#[derive(Default)]
struct ReceiptBatch {
    heads: HashMap<DeliveryKey, DeliveryHead>,
    /// The statuses as they were read; `heads` has them after the corrections.
    before: HashMap<DeliveryKey, Status>,
    attempts: HashMap<DeliveryKey, Vec<AttemptEvidence>>,
    received: BTreeMap<(DeliveryKey, i16), AttemptReceipt>,
    corrections: BTreeMap<DeliveryKey, Correction>,
    done: Vec<ReceiptResult>,
}

/// Applies one batch of waiting receipts in one transaction. Returns whether it was full, so that more may wait.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn apply(hub: &Hub) -> Result<bool> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let take = async |from| {
        let waiting = receipt::lock_pending(&mut tx, now, limits::RECEIPT_BATCH, from).await?;
        // Receipts are committed out of order.
        let last = waiting.iter().map(|r| r.try_at).max().map(|last| last - limits::RECEIPT_SLACK);
        Ok((waiting, last))
    };
    let waiting = hub.tails.receipts.read(take).await?;
    if waiting.is_empty() {
        return Ok(tx.rollback().await.map(|()| false)?);
    }
    let more = waiting.len() as i64 == limits::RECEIPT_BATCH;
    let keys: BTreeSet<DeliveryKey> = waiting.iter().filter_map(|w| Some(w.reference?.key)).collect();
    let mut batch = ReceiptBatch::of(&mut tx, &keys.into_iter().collect::<Vec<_>>()).await?;
    for receipt in waiting {
        batch.add(receipt, now);
    }
    store::attempt::apply_receipts(&mut *tx, &batch.received.values().cloned().collect::<Vec<_>>()).await?;
    receipt::record_results(&mut *tx, &batch.done, now).await?;
    let after = batch.write(hub, &mut tx, now).await?;
    may_die_at("apply.before_commit");
    tx.commit().await?;
    may_die_at("apply.after_commit");
    for done in &batch.done {
        let effect = done.effect.unwrap_or("waits");
        hub.metrics.receipts.with_label_values(&[&done.provider, effect]).inc();
    }
    fallback::announce(hub, &after);
    Ok(more)
}

/// Evaluates again deliveries whose attempts may have got receipts before they were settled, in the caller's
/// transaction. Announce the returned fallbacks after the commit.
pub(super) async fn reevaluate(
    hub: &Hub,
    tx: &mut Conn,
    keys: &[DeliveryKey],
    now: DateTime<Utc>,
) -> Result<fallback::NewFallbacks> {
    let mut batch = ReceiptBatch::of(tx, keys).await?;
    for key in keys {
        let has_receipt = batch.attempts.get(key).is_some_and(|all| all.iter().any(|t| t.receipt.is_some()));
        if has_receipt {
            batch.evaluate(*key);
        }
    }
    batch.write(hub, tx, now).await
}

fn delivery_state(head: &DeliveryHead) -> DeliveryState {
    let reason = head.reason.as_deref();
    DeliveryState {
        status: head.status,
        receipt_overdue: head.status == Status::Undetermined && reason == Some(NO_RECEIPT),
        redriven: reason == Some("redriven"),
    }
}

impl ReceiptBatch {
    async fn of(tx: &mut Conn, keys: &[DeliveryKey]) -> Result<ReceiptBatch> {
        let heads = store::delivery::lock_for_receipts(&mut *tx, keys).await?;
        let attempts = store::attempt::of_deliveries(&mut *tx, keys).await?;
        let before = heads.iter().map(|h| (h.key, h.status)).collect();
        let heads = heads.into_iter().map(|h| (h.key, h)).collect();
        Ok(ReceiptBatch { heads, before, attempts, ..ReceiptBatch::default() })
    }

    fn add(&mut self, receipt: PendingReceipt, now: DateTime<Utc>) {
        let (effect, again) = match self.match_to_attempt(&receipt) {
            // A worker holds the attempt and will settle it soon.
            None => (None, Some(limits::RECEIPT_AGAIN)),
            Some("unmatched") => (Some("unmatched"), Some(limits::RECEIPT_UNMATCHED_AGAIN)),
            Some(effect) => (Some(effect), None),
        };
        // The longer a receipt waits, the more rarely it is looked at.
        let age = (now - receipt.received_at).to_std().unwrap_or_default();
        let left = receipt.reference.is_none() && now - receipt.received_at >= limits::UNMATCHED_LEFT;
        let again_at = again.map(|(least, most)| match left {
            true => now + limits::UNMATCHED_LEFT_FOR,
            false => now + age.clamp(least, most),
        });
        let PendingReceipt { provider, event_key, reference, .. } = receipt;
        self.done.push(ReceiptResult { provider, event_key, reference, effect, retry_at: again_at });
    }

    /// Assigns a receipt to its attempt and evaluates the delivery. Returns the effect to record; None: the receipt
    /// waits, because a worker holds the attempt.
    fn match_to_attempt(&mut self, receipt: &PendingReceipt) -> Option<&'static str> {
        let Some(reference) = receipt.reference else { return Some("unmatched") };
        let Some(head) = self.heads.get(&reference.key) else { return Some("unmatched") };
        let attempts = self.attempts.entry(reference.key).or_default();
        let index = match match_receipt(head.status, attempts, &receipt.provider, reference.attempt) {
            ReceiptMatch::InProgress => return None,
            ReceiptMatch::NoAttempt => return Some("unmatched"),
            ReceiptMatch::Attempt(index) => index,
        };
        let tried = attempts.get_mut(index)?;
        if tried.receipt >= Some(receipt.outcome) {
            return Some("known");
        }
        (tried.receipt, tried.reason) = (Some(receipt.outcome), receipt.class.clone());
        let provider = receipt.provider.clone();
        tried.provider.get_or_insert_with(|| provider.clone());
        let received = AttemptReceipt {
            key: reference.key,
            attempt: reference.attempt,
            outcome: receipt.outcome,
            reason: receipt.class.clone(),
            code: receipt.code.clone(),
            at: receipt.occurred_at.unwrap_or(receipt.received_at),
            provider,
        };
        self.received.insert((reference.key, reference.attempt), received);
        if self.evaluate(reference.key) { Some("applied") } else { Some("recorded") }
    }

    /// Evaluates a delivery by the evidence on its attempts; returns whether its status changes.
    fn evaluate(&mut self, key: DeliveryKey) -> bool {
        let (Some(head), Some(attempts)) = (self.heads.get_mut(&key), self.attempts.get(&key)) else { return false };
        let Some(correction) = correction(delivery_state(head), attempts) else { return false };
        (head.status, head.reason) = (correction.status, correction.reason.clone());
        self.corrections.insert(key, correction);
        true
    }

    /// Writes the corrected statuses and everything that follows.
    async fn write(&self, hub: &Hub, tx: &mut Conn, now: DateTime<Utc>) -> Result<fallback::NewFallbacks> {
        let mut changes = Vec::new();
        for (key, correction) in &self.corrections {
            let (Some(head), Some(former)) = (self.heads.get(key), self.before.get(key)) else { continue };
            if *former == correction.status {
                continue;
            }
            let attempts = self.attempts.get(key).map(Vec::as_slice).unwrap_or_default();
            let provider = attempts.iter().find(|t| t.attempt == correction.attempt).and_then(|t| t.provider.clone());
            let asked = provider.as_deref().or(head.provider.as_deref());
            let due = receipt_window(hub, asked, head.lane.channel()).map(|within| now + within);
            changes.push((
                head,
                *former,
                correction.clone(),
                provider,
                due.filter(|_| correction.status == Status::Sent),
            ));
        }
        write(hub, tx, changes, now).await
    }
}

/// How long after acceptance a provider's receipt comes at most; None if it sends none.
pub(super) fn receipt_window(hub: &Hub, provider: Option<&str>, channel: Channel) -> Option<TimeDelta> {
    let within = hub.providers.get(provider?)?.capability(channel)?.receipt_within?;
    TimeDelta::from_std(within).ok()
}

/// A status change: the locked delivery, its former status, the correction, the provider whose receipt caused it, and
/// until when to wait for a further receipt.
type StatusChange<'a> = (&'a DeliveryHead, Status, Correction, Option<String>, Option<DateTime<Utc>>);

/// Writes status changes of locked deliveries, with their events and fallbacks.
async fn write(
    hub: &Hub,
    tx: &mut Conn,
    changes: Vec<StatusChange<'_>>,
    now: DateTime<Utc>,
) -> Result<fallback::NewFallbacks> {
    if changes.is_empty() {
        return Ok(fallback::NewFallbacks::default());
    }
    let receive = |(head, former, correction, provider, receipt_due): &StatusChange<'_>| ReceiptUpdate {
        key: head.key,
        previous_status: *former,
        status: correction.status,
        reason: correction.reason.clone(),
        attempt: correction.attempt,
        provider: provider.clone(),
        receipt_due: *receipt_due,
    };
    let written =
        store::delivery::apply_receipts(&mut *tx, &changes.iter().map(receive).collect::<Vec<_>>(), now).await?;
    let written: HashMap<DeliveryKey, _> = written.into_iter().map(|m| (m.key, m)).collect();
    let event = |(head, _, correction, ..): &StatusChange<'_>| {
        let change = written.get(&head.key)?;
        let payload = EventPayload {
            event: correction.status.event_kind()?.as_str().into(),
            no: head.key.no,
            seq: change.event_seq,
            attempt: Some(correction.attempt),
            lane: Some(head.lane.0),
            status: Some(correction.status.as_str().into()),
            provider: change.provider.clone(),
            reason: correction.reason.clone(),
            occurred_at: now,
            ..EventPayload::default()
        };
        let (priority, overflow) = (head.lane.priority(), head.lane.is_overflow());
        let (partner_id, shard, about) = (head.partner_id, head.key.shard, Some(head.key.message_id));
        Some(NewEvent { partner_id, shard, about, priority, overflow, payload, only: None })
    };
    let events: Vec<NewEvent> = changes.iter().filter_map(event).collect();
    let published = publish(hub, tx, &events).await?;
    let ended: Vec<(i16, Tsid, Tsid)> = events.iter().filter_map(|n| Some((n.shard, n.about?, n.partner_id))).collect();
    store::event::mark_endings(&mut *tx, &ended).await?;
    let sent = |(head, _, _, _, due): &StatusChange<'_>| Some((head.key, (*due)?));
    fallback::shorten_receipt_waits(
        hub,
        tx,
        &changes.iter().filter(|m| m.0.has_fallback).filter_map(sent).collect(),
        now,
    )
    .await?;
    let wanted: Vec<FallbackRequest> =
        changes.iter().filter_map(|(head, _, correction, ..)| wanted(head, correction)).collect();
    let made = fallback::create(hub, tx, &wanted, now).await?;
    for (head, former, correction, ..) in &changes {
        let labels = [head.lane.channel().as_str(), correction.status.as_str()];
        hub.metrics.settled.with_label_values(&labels).inc();
        tracing::debug!(
            delivery = %head.key, attempt = correction.attempt, was = %former, status = %correction.status,
            "a receipt changed the status of a delivery"
        );
    }
    Ok(made.with(published))
}

fn wanted(head: &DeliveryHead, correction: &Correction) -> Option<FallbackRequest> {
    let reason = match correction.status {
        _ if !head.has_fallback => return None,
        Status::Failed if fallback::falls_back(correction.reason.as_deref()) => FallbackReason::Failed,
        Status::Expired => FallbackReason::Failed,
        Status::Undetermined if correction.reason.as_deref() == Some(NO_RECEIPT) => FallbackReason::NoReceipt,
        Status::Undetermined => FallbackReason::Unknown,
        _ => return None,
    };
    Some(FallbackRequest { key: head.key, reason })
}

/// Handles SENT deliveries of these shards whose receipt is overdue: they become UNDETERMINED, or get their fallback if
/// the message asks for one sooner. Returns whether the batch was full, so that more may be due.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn overdue(hub: &Hub, shards: &[i16]) -> Result<bool> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let has_list = |account: &&Arc<Account>| account.provider.poll_receipts(None, now).is_some();
    let lists: Vec<String> = hub.providers.iter().filter(has_list).map(|a| a.name().to_owned()).collect();
    let due = store::delivery::lock_receipt_overdue(&mut tx, shards, now, limits::HOUSEKEEPING_BATCH, &lists).await?;
    if due.is_empty() {
        return Ok(false);
    }
    let (mut over, mut early, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for head in &due {
        let last = receipt_deadline(hub, head, now);
        if head.status != Status::Sent {
            waits.push((head.key, None));
        } else if last <= now {
            let reason = Some(NO_RECEIPT.to_owned());
            let correction = Correction { status: Status::Undetermined, attempt: head.attempt, reason };
            over.push((head, head.status, correction, None, None));
        } else {
            // The message asks for a fallback before the receipt's time is over.
            early.push(FallbackRequest { key: head.key, reason: FallbackReason::NoReceipt });
            waits.push((head.key, Some(last)));
        }
    }
    store::delivery::set_receipt_due(&mut *tx, &waits).await?;
    over.sort_by_key(|m| m.0.key);
    let made = write(hub, &mut tx, over, now).await?;
    let made = made.and(fallback::create(hub, &mut tx, &early, now).await?);
    may_die_at("overdue.before_commit");
    tx.commit().await?;
    fallback::announce(hub, &made);
    Ok(due.len() as i64 == limits::HOUSEKEEPING_BATCH)
}

/// Until when the receipt of a delivery may come. If its account is not in these settings, that is unknown, and the
/// delivery is looked at again later.
fn receipt_deadline(hub: &Hub, head: &DeliveryHead, now: DateTime<Utc>) -> DateTime<Utc> {
    let provider = head.provider.as_deref();
    if provider.and_then(|name| hub.providers.get(name)).is_none() {
        return now + limits::OVERDUE_AGAIN;
    }
    let since = head.settled_at.unwrap_or(now);
    receipt_window(hub, provider, head.lane.channel()).map_or(now, |within| since + within)
}

/// Reads and stores the next slice of a provider's list of results, unless another process reads it. Returns whether
/// there is more right now.
///
/// # Errors
/// `Error::Unavailable` if the provider or the database fails. The cursor stays, so the slice is read again.
pub async fn poll(hub: &Hub, account: &Account) -> Result<bool> {
    let (provider, db, now) = (account.name(), hub.store.api(), hub.clock.now());
    let budget = hub.settings.timing.call_budget();
    let ahead = |pause: Duration| hub.clock.now() + TimeDelta::from_std(pause).unwrap_or_default();
    let lease = ahead(budget + limits::POLL_MARGIN);
    let Some(cursor) = store::provider_cursor::lease(db, provider, now, lease).await? else { return Ok(false) };
    let Some(asked) = account.provider.poll_receipts(cursor.as_deref(), now) else { return Ok(false) };
    let answer = tokio::time::timeout(budget, asked).await.unwrap_or_else(|_| Err("no answer in time".into()));
    let polled = match answer {
        Ok(polled) => polled,
        Err(why) => {
            hub.metrics.receipts.with_label_values(&[provider, "poll_failed"]).inc();
            store::provider_cursor::postpone(db, provider, ahead(limits::POLL_REST)).await?;
            return Err(Error::Unavailable(format!("the results of {provider} could not be read: {why}").into()));
        }
    };
    may_die_at("poll.after_answer");
    let rows = to_rows(provider, polled.receipts, polled.cursor.as_bytes(), hub);
    let mut tx = hub.store.begin().await?;
    for part in rows.chunks(limits::RECEIPTS_WRITTEN) {
        receipt::insert(&mut *tx, provider, part, now).await?;
    }
    // The lease ends with the slice, so that any process may read the next one.
    let (former, end, free) = (cursor.as_deref(), (!polled.has_more).then_some(now), hub.clock.now());
    if !store::provider_cursor::save(&mut *tx, provider, (former, &polled.cursor), end, free).await? {
        tracing::info!(provider, "another process read the slice meanwhile; this result is dropped");
        tx.rollback().await?;
        return Ok(false);
    }
    may_die_at("poll.before_commit");
    tx.commit().await?;
    Ok(polled.has_more)
}

/// Counts receipts that match no attempt, for the metrics.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the metric stays as it was.
pub async fn measure(hub: &Hub) -> Result<()> {
    let before = hub.clock.now() - limits::UNMATCHED_AGED;
    let aged = receipt::count_unmatched(hub.store.api(), before, limits::UNMATCHED_COUNTED).await?;
    let aged = aged.iter().map(|(_, receipts, _)| receipts).sum();
    hub.metrics.receipts_unmatched.with_label_values::<&str>(&[]).set(aged);
    Ok(())
}
