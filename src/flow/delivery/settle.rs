//! Settle: writes what attempts came to, each only if its fence still holds, and what follows from it in the same
//! transaction.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::OnUnknown;
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

/// Settles a batch: winners change their heads, and only winners emit. What lost its fence is kept on its own attempt.
pub async fn settle(hub: &Hub, mut batch: Vec<Settle>) -> Result<()> {
    batch.sort_by_key(|s| s.key);
    let began = Instant::now();
    let now = hub.clock.now();
    let Some(channel) = batch.first().map(|s| s.lane.channel()) else { return Ok(()) };
    let (won, made) = if batch.iter().any(|s| {
        in_doubt(s)
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
        (store::delivery::settle(hub.store.pool_for(channel), &batch, now).await?, fallback::NewFallbacks::default())
    };
    may_die_at("settle.after_commit");
    observe(&hub.metrics.settle_seconds, &[], began.elapsed());
    let by_key: HashMap<DeliveryKey, bool> = won.iter().map(|w| (w.key, w.cancel_requested)).collect();
    let (winners, losers): (Vec<Settle>, Vec<Settle>) = batch.into_iter().partition(|s| by_key.contains_key(&s.key));
    notify_workers(hub, &winners, &won);
    fallback::announce(hub, &made);
    channel::release_next(hub, &winners).await;
    let won = by_key;
    if !losers.is_empty() {
        settle_late(hub, &losers, now).await?;
    }
    // A wish to cancel that came during the call was not known when its step was decided.
    let waits = |s: &&Settle| matches!(s.step.status, Status::Scheduled | Status::Pending) && won[&s.key];
    let unwanted: Vec<UnsettledDelivery> = winners.iter().filter(waits).map(UnsettledDelivery::after_step).collect();
    if !unwanted.is_empty() {
        end_waiting(hub, unwanted, &Outcome::Canceled).await?;
    }
    Ok(())
}

/// A head that may have been sent and is not called so: one of its attempts may turn out to have been accepted.
fn in_doubt(settle: &Settle) -> bool {
    settle.step.possibly_sent && settle.step.status != Status::Sent
}

/// By which id of its provider's own receipts will know an attempt, if they do not repeat our reference.
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

/// Writes steps; a head in doubt is lifted in the same transaction if one of its attempts answered late meanwhile, or a
/// receipt told of it. So at no commit does a head deny what its attempts tell. And what takes the place of those that
/// ended.
pub(super) async fn write(
    hub: &Hub,
    tx: &mut store::Conn,
    batch: &[Settle],
    now: DateTime<Utc>,
) -> Result<(Vec<SettledStep>, NewFallbacks)> {
    let won = store::delivery::settle(&mut *tx, batch, now).await?;
    let kept: HashSet<DeliveryKey> = won.iter().map(|w| w.key).collect();
    let doubtful: Vec<DeliveryKey> =
        batch.iter().filter(|s| in_doubt(s) && kept.contains(&s.key)).map(|s| s.key).collect();
    insert_provider_refs(hub, tx, batch.iter().filter(|s| kept.contains(&s.key))).await?;
    let apart: Vec<&Settle> = batch.iter().filter(|s| s.suspect.is_some() && kept.contains(&s.key)).collect();
    if !apart.is_empty() {
        store::suspect::upsert(&mut *tx, &apart).await?;
    }
    let lifted = correct(hub, tx, &doubtful, now).await?;
    let follows = batch.iter().filter(|s| kept.contains(&s.key)).filter_map(fallback::requested_by);
    let made = fallback::create(hub, tx, &follows.collect::<Vec<_>>(), now).await?;
    Ok((won, lifted.and(made)))
}

/// Outcomes that came after their lease was over: kept on their own attempts, and if accepted they lift heads that do
/// not know better, in the same transaction. Heads are locked first: whoever settles them meanwhile comes before or
/// after.
async fn settle_late(hub: &Hub, losers: &[Settle], now: DateTime<Utc>) -> Result<()> {
    let keys: Vec<DeliveryKey> = losers.iter().map(|s| s.key).collect();
    let Some(channel) = losers.first().map(|s| s.lane.channel()) else { return Ok(()) };
    let mut tx = hub.store.begin_for(channel).await?;
    store::delivery::lock(&mut tx, &keys).await?;
    let kept = store::attempt::record_late_outcomes(&mut *tx, losers, now).await?;
    insert_provider_refs(hub, &mut tx, losers).await?;
    may_die_at("late.before_commit");
    let made = correct(hub, &mut tx, &keys, now).await?;
    tx.commit().await?;
    fallback::announce(hub, &made);
    channel::release_next(hub, losers).await;
    // Fewer than the losers where a batch is written again because its answer was lost.
    hub.metrics.late_settles.inc_by(kept);
    tracing::info!(late = kept, "outcomes came after their lease was over");
    Ok(())
}

/// Returns what receipts that came before make of them, to be announced after the commit.
async fn correct(
    hub: &Hub,
    tx: &mut store::Conn,
    doubtful: &[DeliveryKey],
    now: DateTime<Utc>,
) -> Result<NewFallbacks> {
    if doubtful.is_empty() {
        return Ok(NewFallbacks::default());
    }
    let lifted = store::delivery::apply_late_acceptances(&mut *tx, doubtful, now).await?;
    let made = receipt::reevaluate(hub, tx, doubtful, now).await?;
    if lifted.is_empty() {
        return Ok(made);
    }
    let due = |l: &LateAcceptance| {
        let within = receipt::receipt_window(hub, l.provider.as_deref(), l.lane.channel())?;
        Some((l.key, now + within))
    };
    let due: HashMap<DeliveryKey, DateTime<Utc>> = lifted.iter().filter_map(due).collect();
    let awaited: Vec<_> = due.iter().map(|(key, at)| (*key, Some(*at))).collect();
    store::delivery::set_receipt_due(&mut *tx, &awaited).await?;
    fallback::shorten_receipt_waits(hub, tx, &due, now).await?;
    tracing::info!(lifted = lifted.len(), "late answers tell that these had been sent");
    let notice = |lifted: &LateAcceptance| NewEvent {
        partner_id: lifted.partner_id,
        shard: lifted.key.shard,
        about: Some(lifted.key.message_id),
        priority: lifted.lane.priority(),
        overflow: lifted.lane.is_overflow(),
        payload: EventPayload {
            event: EventKind::Sent.as_str().into(),
            no: lifted.key.no,
            seq: lifted.event_seq,
            attempt: Some(lifted.attempt),
            lane: Some(lifted.lane.0),
            status: Some(Status::Sent.as_str().into()),
            provider: lifted.provider.clone(),
            reason: Some("late_answer".into()),
            occurred_at: now,
            ..EventPayload::default()
        },
        only: None,
    };
    let notices: Vec<NewEvent> =
        lifted.iter().filter(|l| l.lane.channel().counts_towards_message()).map(notice).collect();
    let published = publish(hub, tx, &notices).await?;
    let ended: Vec<(i16, Tsid, Tsid)> =
        notices.iter().filter_map(|n| Some((n.shard, n.about?, n.partner_id))).collect();
    store::event::mark_endings(tx, &ended).await?;
    Ok(made.with(published))
}

/// After the commit: counts, and wakes workers for what is PENDING again.
pub fn notify_workers(hub: &Hub, winners: &[Settle], won: &[SettledStep]) {
    for settle in winners {
        let labels = [settle.lane.channel().as_str(), settle.step.status.as_str()];
        hub.metrics.settled.with_label_values(&labels).inc();
    }
    let again = winners.iter().filter(|s| s.step.status == Status::Pending);
    let again = again.filter_map(|s| Some(((s.key.shard, s.lane), s.step.ready_at?)));
    let heard: HashSet<DeliveryKey> = won.iter().filter(|w| w.has_subscribers).map(|w| w.key).collect();
    let told = winners.iter().filter(|s| heard.contains(&s.key));
    let told = told.map(|s| {
        let lane = Lane::of_events(s.lane.priority(), s.lane.is_overflow());
        ((s.key.shard, lane), hub.clock.now())
    });
    hub.wake.notify(again.chain(told));
}

/// Ends deliveries that no worker holds; returns how many were still as they were seen.
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
            webhook_message_id: hub.next_id(),
            receipt_due: None,
            suspect: None,
            release_limit: channel::followers_unprepared(w.head.channel),
        })
        .collect();
    settles.sort_by_key(|s| s.key);
    let won = store::delivery::settle(hub.store.engine(), &settles, now).await?;
    settles.retain(|s| won.iter().any(|w| w.key == s.key));
    notify_workers(hub, &settles, &won);
    channel::release_next(hub, &settles).await;
    Ok(settles.len())
}
