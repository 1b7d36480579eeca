//! Settle: writes the outcomes of attempts, each only if its fence still holds, and everything that follows from them
//! in the same transaction: events, corrections and fallbacks.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::{DeliveryKey, Outcome, Status, next_transition};
use crate::model::event::{EventKind, EventPayload};
use crate::model::lane::Lane;
use crate::model::receipt::AttemptReference;
use crate::shutdown::may_die_at;
use crate::store;
use crate::store::delivery::{LateAcceptance, Settle, SettledStep, UnsettledDelivery};
use crate::telemetry::observe;

use crate::flow::fallback::{self, NewFallbacks};
use crate::flow::publish::{NewEvent, publish};
use crate::flow::{channel, receipt};

/// Settles a batch of deliveries, all of one group of channels (`Channel::calls_partner_servers`); keys are unique. An
/// outcome whose fence still holds changes the delivery and emits its event. One that lost its fence (the lease ended,
/// and the reaper or another attempt changed the delivery) is only recorded on its attempt.
///
/// # Errors
/// `Error::Unavailable` if the database fails. The batch may have committed; settling it again is safe, because the
/// fence of what is written no longer holds.
pub async fn settle(hub: &Hub, batch: &[Settle]) -> Result<()> {
    let mut batch: Vec<&Settle> = batch.iter().collect();
    batch.sort_by_key(|s| s.key);
    let began = Instant::now();
    let now = hub.clock.now();
    let Some(channel) = batch.first().map(|s| s.lane.channel()) else { return Ok(()) };
    let (won, made) = if batch.iter().any(|s| {
        may_be_corrected(s)
            || s.suspect.is_some()
            || fallback::requested_by(s).is_some()
            || provider_reference(hub, s).is_some()
    }) {
        let mut tx = hub.store.begin_for(channel).await?;
        let written = write(hub, &mut tx, &batch, now).await?;
        may_die_at("settle.before_commit");
        tx.commit().await?;
        written
    } else {
        (write_without_followers(hub, channel, &batch, now).await?, NewFallbacks::default())
    };
    may_die_at("settle.after_commit");
    observe(&hub.metrics.settle_seconds, &[], began.elapsed());
    let by_key: HashMap<DeliveryKey, bool> = won.iter().map(|w| (w.key, w.cancel_requested)).collect();
    let (winners, losers): (Vec<&Settle>, Vec<&Settle>) = batch.into_iter().partition(|s| by_key.contains_key(&s.key));
    notify_workers(hub, &winners, &won);
    fallback::announce(hub, &made);
    channel::release_next(hub, &winners).await;
    let won = by_key;
    if !losers.is_empty() {
        settle_late(hub, &losers, now).await?;
    }
    // A cancellation requested during the call was not known when the step was decided.
    let waits = |s: &&&Settle| matches!(s.step.status, Status::Scheduled | Status::Pending) && won[&s.key];
    let unwanted: Vec<UnsettledDelivery> =
        winners.iter().filter(waits).map(|s| UnsettledDelivery::after_step(s)).collect();
    if !unwanted.is_empty() {
        end_waiting(hub, unwanted, &Outcome::Canceled).await?;
    }
    Ok(())
}

/// Writes steps from which nothing follows but their webhooks: plain sends by the statement for them, and the others,
/// with those that it skipped, by the full one. The statement itself sees which partners have endpoints; what this
/// process remembers of them only saves a try. `batch` is sorted by key.
async fn write_without_followers(
    hub: &Hub,
    channel: Channel,
    batch: &[&Settle],
    now: DateTime<Utc>,
) -> Result<Vec<SettledStep>> {
    let db = hub.store.pool_for(channel);
    let is_plain = |s: &&&Settle| s.is_plain_send() && !hub.full_writes.is_needed(s.partner_id, now);
    let sends: Vec<&Settle> = batch.iter().filter(is_plain).copied().collect();
    let mut won = store::delivery::settle_sends(db, &sends, now).await?;
    may_die_at("settle.sends_written");
    let written: HashSet<DeliveryKey> = won.iter().map(|w| w.key).collect();
    let others: Vec<&Settle> = batch.iter().filter(|s| !written.contains(&s.key)).copied().collect();
    let with_others = store::delivery::settle(db, &others, now).await?;
    let skipped: HashSet<DeliveryKey> = with_others.iter().map(|w| w.key).collect();
    let with_endpoints = sends.iter().filter(|s| skipped.contains(&s.key)).filter_map(|s| s.partner_id);
    hub.full_writes.note(with_endpoints, now);
    won.extend(with_others);
    Ok(won)
}

/// Whether what is known of the attempts may still correct the status: it may have been sent, and no success is known.
fn may_be_corrected(settle: &Settle) -> bool {
    settle.step.possibly_sent && !settle.step.status.is_success()
}

/// The provider's own id by which its receipts will refer to an attempt, where they do not repeat our reference.
fn provider_reference(hub: &Hub, settle: &Settle) -> Option<(String, String, AttemptReference)> {
    let (provider, id) = (settle.provider.clone()?, settle.ended_attempt.as_ref()?.provider_ref.clone()?);
    let of = hub.providers.get(&provider)?.capability(settle.lane.channel())?;
    let known = of.receipt_within.is_some() && !of.repeats_reference && id.len() <= limits::EVENT_KEY_BYTES;
    known.then_some((provider, id, AttemptReference { key: settle.key, attempt: settle.head.attempt }))
}

async fn insert_provider_refs(
    hub: &Hub,
    tx: &mut store::Conn,
    settles: impl IntoIterator<Item = &Settle>,
) -> Result<()> {
    let mut refs: Vec<_> = settles.into_iter().filter_map(|s| provider_reference(hub, s)).collect();
    if refs.is_empty() {
        return Ok(());
    }
    refs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    store::provider_ref::insert(tx, &refs).await
}

/// Writes steps in the caller's transaction, and in it: corrections of deliveries whose attempts answered late or got a
/// receipt meanwhile, so that no commit leaves a delivery that contradicts its attempts; and the fallbacks of those
/// that ended. `batch` is sorted by key. Returns the steps whose fence held, and the fallbacks to announce after the
/// commit.
pub(super) async fn write(
    hub: &Hub,
    tx: &mut store::Conn,
    batch: &[&Settle],
    now: DateTime<Utc>,
) -> Result<(Vec<SettledStep>, NewFallbacks)> {
    let won = store::delivery::settle(&mut *tx, batch, now).await?;
    let settled: HashSet<DeliveryKey> = won.iter().map(|w| w.key).collect();
    let correctable: Vec<DeliveryKey> =
        batch.iter().filter(|s| may_be_corrected(s) && settled.contains(&s.key)).map(|s| s.key).collect();
    insert_provider_refs(hub, tx, batch.iter().filter(|s| settled.contains(&s.key)).copied()).await?;
    let suspects: Vec<&Settle> =
        batch.iter().filter(|s| s.suspect.is_some() && settled.contains(&s.key)).copied().collect();
    if !suspects.is_empty() {
        store::suspect::upsert(&mut *tx, &suspects).await?;
    }
    let corrected = correct(hub, tx, &correctable, now).await?;
    let follows = batch.iter().filter(|s| settled.contains(&s.key)).filter_map(|s| fallback::requested_by(s));
    let made = fallback::create(hub, tx, &follows.collect::<Vec<_>>(), now).await?;
    Ok((won, corrected.and(made)))
}

/// Records outcomes that came after their lease was over on their own attempts. An accepted one corrects its delivery
/// in the same transaction. Deliveries are locked first, so that another settle comes entirely before or after.
async fn settle_late(hub: &Hub, losers: &[&Settle], now: DateTime<Utc>) -> Result<()> {
    let keys: Vec<DeliveryKey> = losers.iter().map(|s| s.key).collect();
    let Some(channel) = losers.first().map(|s| s.lane.channel()) else { return Ok(()) };
    let mut tx = hub.store.begin_for(channel).await?;
    store::delivery::lock(&mut tx, &keys).await?;
    let recorded = store::attempt::record_late_outcomes(&mut *tx, losers, now).await?;
    insert_provider_refs(hub, &mut tx, losers.iter().copied()).await?;
    may_die_at("late.before_commit");
    let made = correct(hub, &mut tx, &keys, now).await?;
    tx.commit().await?;
    fallback::announce(hub, &made);
    channel::release_next(hub, losers).await;
    // Fewer than the losers if the batch had committed before and is written again.
    hub.metrics.late_settles.inc_by(recorded);
    tracing::info!(late = recorded, "outcomes came after their leases were over; they are recorded on their attempts");
    Ok(())
}

/// Corrects deliveries whose attempts turned out to be accepted, by late answers or receipts. Returns the fallbacks and
/// events to announce after the commit.
async fn correct(
    hub: &Hub,
    tx: &mut store::Conn,
    correctable: &[DeliveryKey],
    now: DateTime<Utc>,
) -> Result<NewFallbacks> {
    if correctable.is_empty() {
        return Ok(NewFallbacks::default());
    }
    let corrected = store::delivery::apply_late_acceptances(&mut *tx, correctable, now).await?;
    let made = receipt::reevaluate(hub, tx, correctable, now).await?;
    if corrected.is_empty() {
        return Ok(made);
    }
    let due = |l: &LateAcceptance| {
        let within = receipt::receipt_window(hub, l.provider.as_deref(), l.lane.channel())?;
        Some((l.key, now + within))
    };
    let due: HashMap<DeliveryKey, DateTime<Utc>> = corrected.iter().filter_map(due).collect();
    let awaited: Vec<_> = due.iter().map(|(key, at)| (*key, Some(*at))).collect();
    store::delivery::set_receipt_due(&mut *tx, &awaited).await?;
    fallback::shorten_receipt_waits(hub, tx, &due, now).await?;
    tracing::info!(corrected = corrected.len(), "late answers corrected deliveries to SENT");
    let event = |corrected: &LateAcceptance| {
        let status = if corrected.lane.channel().ends_in_hub() { Status::Delivered } else { Status::Sent };
        NewEvent {
            partner_id: corrected.partner_id,
            shard: corrected.key.shard,
            about: Some(corrected.key.message_id),
            priority: corrected.lane.priority(),
            overflow: corrected.lane.is_overflow(),
            payload: EventPayload {
                event: status.event_kind().unwrap_or(EventKind::Sent).as_str().into(),
                no: corrected.key.no,
                seq: corrected.event_seq,
                attempt: Some(corrected.attempt),
                lane: Some(corrected.lane.0),
                status: Some(status.as_str().into()),
                provider: corrected.provider.clone(),
                reason: Some("late_answer".into()),
                occurred_at: now,
                ..EventPayload::default()
            },
            only: None,
        }
    };
    let events: Vec<NewEvent> =
        corrected.iter().filter(|l| l.lane.channel().counts_towards_message()).map(event).collect();
    let published = publish(hub, tx, &events).await?;
    let ended: Vec<(i16, Tsid, Tsid)> = events.iter().filter_map(|n| Some((n.shard, n.about?, n.partner_id))).collect();
    store::event::mark_endings(tx, &ended).await?;
    Ok(made.with(published))
}

/// Counts settled deliveries and wakes workers for those that are PENDING again and for events. Call it after the
/// commit.
pub fn notify_workers(hub: &Hub, winners: &[&Settle], won: &[SettledStep]) {
    for settle in winners {
        let labels = [settle.lane.channel().as_str(), settle.step.status.as_str()];
        hub.metrics.settled.with_label_values(&labels).inc();
    }
    let pending = winners.iter().filter(|s| s.step.status == Status::Pending);
    let pending = pending.filter_map(|s| Some(((s.key.shard, s.lane), s.step.ready_at?)));
    let with_subscribers: HashSet<DeliveryKey> = won.iter().filter(|w| w.has_subscribers).map(|w| w.key).collect();
    let for_events = winners.iter().filter(|s| with_subscribers.contains(&s.key));
    let for_events = for_events.map(|s| {
        let lane = Lane::of_events(s.lane.priority(), s.lane.is_overflow());
        ((s.key.shard, lane), hub.clock.now())
    });
    hub.wake.notify(pending.chain(for_events));
}

/// Ends deliveries that no worker holds with `outcome`, in one statement. Returns how many ended: those that changed
/// since they were read are left out.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the statement may have committed.
pub async fn end_waiting(hub: &Hub, waiting: Vec<UnsettledDelivery>, outcome: &Outcome) -> Result<usize> {
    let now = hub.clock.now();
    let mut settles: Vec<Settle> = waiting
        .into_iter()
        .map(|w| Settle {
            key: w.key,
            lane: w.lane,
            head: w.head,
            step: next_transition(
                &w.head,
                outcome,
                &hub.settings.retry.policy(w.head.channel, false),
                OnUnknown::Retry,
                now,
                0.0,
            ),
            provider: None,
            ended_attempt: None,
            event_message_id: hub.next_id(),
            receipt_due: None,
            suspect: None,
            partner_id: None,
            release_limit: channel::followers_unprepared(w.head.channel),
        })
        .collect();
    settles.sort_by_key(|s| s.key);
    let mut settles: Vec<&Settle> = settles.iter().collect();
    let won = store::delivery::settle(hub.store.engine(), &settles, now).await?;
    settles.retain(|s| won.iter().any(|w| w.key == s.key));
    notify_workers(hub, &settles, &won);
    channel::release_next(hub, &settles).await;
    Ok(settles.len())
}
