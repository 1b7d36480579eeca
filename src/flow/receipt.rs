//! Receipts: kept before whoever told them is answered, and applied soon after. What is applied follows from all that is known
//! of a delivery (`model::receipt::weigh`), under its row's lock: so any order, and any repetition, comes to the same end.

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

/// Keeps what a provider told; durable when this returns. `origin` is the same for the same body or slice, so that what could
/// not be read in it is kept once, too. Says how much was new.
pub async fn save(hub: &Hub, provider: &str, receipts: Receipts, origin: &[u8]) -> Result<u64> {
    let told = to_rows(provider, receipts, origin, hub);
    let mut new = 0;
    let mut tx = hub.store.begin().await?;
    for part in told.chunks(limits::RECEIPTS_WRITTEN) {
        new += receipt::insert(&mut *tx, provider, part, hub.clock.now()).await?;
    }
    may_die_at("receipt.before_commit");
    tx.commit().await?;
    may_die_at("receipt.after_commit");
    Ok(new)
}

/// What is kept of them, sorted by key.
fn to_rows(provider: &str, receipts: Receipts, origin: &[u8], hub: &Hub) -> Vec<receipt::NewReceipt> {
    let mut unreadable = 0;
    let read = receipts.into_iter().enumerate().map(|(n, told)| match told {
        Ok(told) => {
            let kept = receipt::NewReceipt::of(&told);
            receipt::NewReceipt {
                event_key: event_key(kept.event_key),
                provider_ref: kept.provider_ref.and_then(clean),
                code: kept.code.and_then(clean),
                detail: kept.detail.and_then(clean),
                // One time that the database does not take must not cost all the others.
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
    // Each piece once: what names its attempt before what does not.
    read.sort_by(|a, b| (&a.event_key, a.reference.is_none()).cmp(&(&b.event_key, b.reference.is_none())));
    read.dedup_by(|a, b| a.event_key == b.event_key);
    if unreadable > 0 {
        tracing::warn!(provider, unreadable, "some of what the provider told cannot be read; it is kept as such");
        hub.metrics.receipts.with_label_values(&[provider, "unreadable"]).inc_by(unreadable);
    }
    read
}

/// A provider's key as a key of ours: what is long or strange in its digest's form.
fn event_key(key: String) -> String {
    if key.len() <= limits::EVENT_KEY_BYTES && !key.contains(char::is_control) {
        return key;
    }
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(key.as_bytes()))
}

/// What one batch comes to.
#[derive(Default)]
struct ReceiptBatch {
    heads: HashMap<DeliveryKey, DeliveryHead>,
    /// As they were found; `heads` holds how they stand by now.
    before: HashMap<DeliveryKey, Status>,
    attempts: HashMap<DeliveryKey, Vec<AttemptEvidence>>,
    received: BTreeMap<(DeliveryKey, i16), AttemptReceipt>,
    corrections: BTreeMap<DeliveryKey, Correction>,
    done: Vec<ReceiptResult>,
}

/// Applies a batch of those that wait; returns whether there was as much as fits one.
pub async fn apply(hub: &Hub) -> Result<bool> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let waiting = receipt::lock_pending(&mut tx, now, limits::RECEIPT_BATCH).await?;
    if waiting.is_empty() {
        return Ok(tx.rollback().await.map(|()| false)?);
    }
    let more = waiting.len() as i64 == limits::RECEIPT_BATCH;
    let keys: BTreeSet<DeliveryKey> = waiting.iter().filter_map(|w| Some(w.reference?.key)).collect();
    let mut round = ReceiptBatch::of(&mut tx, &keys.into_iter().collect::<Vec<_>>()).await?;
    for receipt in waiting {
        round.add(receipt, now);
    }
    store::attempt::apply_receipts(&mut *tx, &round.received.values().cloned().collect::<Vec<_>>()).await?;
    receipt::record_results(&mut *tx, &round.done, now).await?;
    let after = round.write(hub, &mut tx, now).await?;
    may_die_at("apply.before_commit");
    tx.commit().await?;
    may_die_at("apply.after_commit");
    for done in &round.done {
        let effect = done.effect.unwrap_or("waits");
        hub.metrics.receipts.with_label_values(&[&done.provider, effect]).inc();
    }
    fallback::announce(hub, &after);
    Ok(more)
}

/// Weighs deliveries again whose doubts may have been told of by receipts before. In the caller's transaction.
pub(super) async fn reevaluate(
    hub: &Hub,
    tx: &mut Conn,
    keys: &[DeliveryKey],
    now: DateTime<Utc>,
) -> Result<fallback::NewFallbacks> {
    let mut round = ReceiptBatch::of(tx, keys).await?;
    for key in keys {
        let told = round.attempts.get(key).is_some_and(|all| all.iter().any(|t| t.receipt.is_some()));
        if told {
            round.evaluate(*key);
        }
    }
    round.write(hub, tx, now).await
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

    fn add(&mut self, told: PendingReceipt, now: DateTime<Utc>) {
        let (effect, again) = match self.match_to_attempt(&told) {
            // A worker says soon what came of it.
            None => (None, Some(limits::RECEIPT_AGAIN)),
            Some("unmatched") => (Some("unmatched"), Some(limits::RECEIPT_UNMATCHED_AGAIN)),
            Some(effect) => (Some(effect), None),
        };
        // The longer it waits, the more rarely it is looked at.
        let age = (now - told.received_at).to_std().unwrap_or_default();
        let left = told.reference.is_none() && now - told.received_at >= limits::UNMATCHED_LEFT;
        let again_at = again.map(|(least, most)| match left {
            true => now + limits::UNMATCHED_LEFT_FOR,
            false => now + age.clamp(least, most),
        });
        let PendingReceipt { provider, event_key, reference, .. } = told;
        self.done.push(ReceiptResult { provider, event_key, reference, effect, retry_at: again_at });
    }

    /// What came of it; None: it waits.
    fn match_to_attempt(&mut self, told: &PendingReceipt) -> Option<&'static str> {
        let Some(reference) = told.reference else { return Some("unmatched") };
        let Some(head) = self.heads.get(&reference.key) else { return Some("unmatched") };
        let attempts = self.attempts.entry(reference.key).or_default();
        let index = match match_receipt(head.status, attempts, &told.provider, reference.attempt) {
            ReceiptMatch::InProgress => return None,
            ReceiptMatch::NoAttempt => return Some("unmatched"),
            ReceiptMatch::Attempt(index) => index,
        };
        let tried = attempts.get_mut(index)?;
        if tried.receipt >= Some(told.outcome) {
            return Some("known");
        }
        (tried.receipt, tried.reason) = (Some(told.outcome), told.class.clone());
        let provider = told.provider.clone();
        tried.provider.get_or_insert_with(|| provider.clone());
        let received = AttemptReceipt {
            key: reference.key,
            attempt: reference.attempt,
            outcome: told.outcome,
            reason: told.class.clone(),
            code: told.code.clone(),
            at: told.occurred_at.unwrap_or(told.received_at),
            provider,
        };
        self.received.insert((reference.key, reference.attempt), received);
        if self.evaluate(reference.key) { Some("applied") } else { Some("recorded") }
    }

    /// Whether it moved.
    fn evaluate(&mut self, key: DeliveryKey) -> bool {
        let (Some(head), Some(attempts)) = (self.heads.get_mut(&key), self.attempts.get(&key)) else { return false };
        let Some(lift) = correction(delivery_state(head), attempts) else { return false };
        (head.status, head.reason) = (lift.status, lift.reason.clone());
        self.corrections.insert(key, lift);
        true
    }

    /// Writes how deliveries stand now, and what follows.
    async fn write(&self, hub: &Hub, tx: &mut Conn, now: DateTime<Utc>) -> Result<fallback::NewFallbacks> {
        let mut moved = Vec::new();
        for (key, lift) in &self.corrections {
            let (Some(head), Some(was)) = (self.heads.get(key), self.before.get(key)) else { continue };
            if *was == lift.status {
                continue;
            }
            let attempts = self.attempts.get(key).map(Vec::as_slice).unwrap_or_default();
            let provider = attempts.iter().find(|t| t.attempt == lift.attempt).and_then(|t| t.provider.clone());
            let asked = provider.as_deref().or(head.provider.as_deref());
            let due = receipt_window(hub, asked, head.lane.channel()).map(|within| now + within);
            moved.push((head, *was, lift.clone(), provider, due.filter(|_| lift.status == Status::Sent)));
        }
        write(hub, tx, moved, now).await
    }
}

/// How long after it took something a provider's receipt comes at most.
pub(super) fn receipt_window(hub: &Hub, provider: Option<&str>, channel: Channel) -> Option<TimeDelta> {
    let within = hub.providers.get(provider?)?.capability(channel)?.receipt_within?;
    TimeDelta::from_std(within).ok()
}

/// A delivery as it was held, how it stood, what becomes of it, who told that, and until when more is waited for.
type Move<'a> = (&'a DeliveryHead, Status, Correction, Option<String>, Option<DateTime<Utc>>);

/// Moves deliveries that are held: the events, what endpoints are told, and what takes their place.
async fn write(hub: &Hub, tx: &mut Conn, moves: Vec<Move<'_>>, now: DateTime<Utc>) -> Result<fallback::NewFallbacks> {
    if moves.is_empty() {
        return Ok(fallback::NewFallbacks::default());
    }
    let receive = |(head, was, lift, provider, receipt_due): &Move<'_>| ReceiptUpdate {
        key: head.key,
        previous_status: *was,
        status: lift.status,
        reason: lift.reason.clone(),
        attempt: lift.attempt,
        provider: provider.clone(),
        receipt_due: *receipt_due,
    };
    let written =
        store::delivery::apply_receipts(&mut *tx, &moves.iter().map(receive).collect::<Vec<_>>(), now).await?;
    let written: HashMap<DeliveryKey, _> = written.into_iter().map(|m| (m.key, m)).collect();
    let notice = |(head, _, lift, ..): &Move<'_>| {
        let moved = written.get(&head.key)?;
        let told = EventPayload {
            event: lift.status.event_kind()?.as_str().into(),
            no: head.key.no,
            seq: moved.event_seq,
            attempt: Some(lift.attempt),
            lane: Some(head.lane.0),
            status: Some(lift.status.as_str().into()),
            provider: moved.provider.clone(),
            reason: lift.reason.clone(),
            occurred_at: now,
            ..EventPayload::default()
        };
        let (priority, overflow) = (head.lane.priority(), head.lane.is_overflow());
        let (partner_id, shard, about) = (head.partner_id, head.key.shard, Some(head.key.message_id));
        Some(NewEvent { partner_id, shard, about, priority, overflow, payload: told, only: None })
    };
    let notices: Vec<NewEvent> = moves.iter().filter_map(notice).collect();
    let published = publish(hub, tx, &notices).await?;
    let ended: Vec<(i16, Tsid, Tsid)> =
        notices.iter().filter_map(|n| Some((n.shard, n.about?, n.partner_id))).collect();
    store::event::mark_endings(&mut *tx, &ended).await?;
    let sent = |(head, _, _, _, due): &Move<'_>| Some((head.key, (*due)?));
    fallback::shorten_receipt_waits(
        hub,
        tx,
        &moves.iter().filter(|m| m.0.has_fallback).filter_map(sent).collect(),
        now,
    )
    .await?;
    let wanted: Vec<FallbackRequest> = moves.iter().filter_map(|(head, _, lift, ..)| wanted(head, lift)).collect();
    let made = fallback::create(hub, tx, &wanted, now).await?;
    for (head, was, lift, ..) in &moves {
        let labels = [head.lane.channel().as_str(), lift.status.as_str()];
        hub.metrics.settled.with_label_values(&labels).inc();
        tracing::debug!(delivery = %head.key, attempt = lift.attempt, %was, status = %lift.status, "told by a receipt");
    }
    Ok(made.with(published))
}

fn wanted(head: &DeliveryHead, lift: &Correction) -> Option<FallbackRequest> {
    let why = match lift.status {
        _ if !head.has_fallback => return None,
        Status::Failed if fallback::falls_back(lift.reason.as_deref()) => FallbackReason::Failed,
        Status::Expired => FallbackReason::Failed,
        Status::Undetermined if lift.reason.as_deref() == Some(NO_RECEIPT) => FallbackReason::NoReceipt,
        Status::Undetermined => FallbackReason::Unknown,
        _ => return None,
    };
    Some(FallbackRequest { key: head.key, reason: why })
}

/// Ends what was sent and had no receipt in time, or has something else take its place. Returns whether there was as much as
/// fits a batch.
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
            let lift = Correction { status: Status::Undetermined, attempt: head.attempt, reason };
            over.push((head, head.status, lift, None, None));
        } else {
            // Something else was to take its place before that.
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

/// Until when its receipt may come at most. Of an account that is not here nobody knows: it is looked at again.
fn receipt_deadline(hub: &Hub, head: &DeliveryHead, now: DateTime<Utc>) -> DateTime<Utc> {
    let provider = head.provider.as_deref();
    if provider.and_then(|name| hub.providers.get(name)).is_none() {
        return now + limits::OVERDUE_AGAIN;
    }
    let since = head.settled_at.unwrap_or(now);
    receipt_window(hub, provider, head.lane.channel()).map_or(now, |within| since + within)
}

/// Reads the next slice of a provider's list of results, if nobody else does; returns whether there is more right now.
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
    let told = to_rows(provider, polled.receipts, polled.cursor.as_bytes(), hub);
    let mut tx = hub.store.begin().await?;
    for part in told.chunks(limits::RECEIPTS_WRITTEN) {
        receipt::insert(&mut *tx, provider, part, now).await?;
    }
    // The lease ends with the slice: whoever comes next reads on.
    let (was, end, free) = (cursor.as_deref(), (!polled.has_more).then_some(now), hub.clock.now());
    if !store::provider_cursor::save(&mut *tx, provider, (was, &polled.cursor), end, free).await? {
        tracing::info!(provider, "another process read on meanwhile");
        tx.rollback().await?;
        return Ok(false);
    }
    may_die_at("poll.before_commit");
    tx.commit().await?;
    Ok(polled.has_more)
}

/// Counts what is about nothing of ours, for those who watch.
pub async fn measure(hub: &Hub) -> Result<()> {
    let before = hub.clock.now() - limits::UNMATCHED_AGED;
    let aged = receipt::count_unmatched(hub.store.api(), before, limits::UNMATCHED_COUNTED).await?;
    let aged = aged.iter().map(|(_, receipts, _)| receipts).sum();
    hub.metrics.receipts_unmatched.with_label_values::<&str>(&[]).set(aged);
    Ok(())
}
