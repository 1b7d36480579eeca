//! Call: one request to a provider for deliveries that are held, with no connection to the database. It always ends
//! with something to settle for each.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;

use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::capability::Batch;
use crate::model::delivery::{DeliveryKey, Outcome, Status};
use crate::model::retry::{ErrorClass, RetryAction};
use crate::provider::{LookupResult, Provider, SendRequest};
use crate::shutdown::may_die_at;
use crate::store;
use crate::store::delivery::Settle;
use crate::telemetry::observe;

use super::load::HeldDelivery;
use super::step::{CallDetails, settle_of};
use super::{pace, route};
use crate::flow::channel::{self, DestinationPermit};

/// What goes out in one request each: what may go together with others goes together, in the order of the claim.
pub fn group_into_requests(held: Vec<HeldDelivery>) -> Vec<Vec<HeldDelivery>> {
    let mut requests: Vec<Vec<HeldDelivery>> = Vec::with_capacity(held.len());
    // The request of a kind that has room still.
    let mut open = HashMap::new();
    for held in held {
        let channel = held.claimed.head.channel;
        let batch = held.account.capability(channel).map_or(Batch::One, |c| c.batch);
        let (most, same) = match batch {
            _ if held.is_sent_alone() => (1, None),
            Batch::One => (1, None),
            Batch::Any(most) => (most, None),
            Batch::SameContent(most) => (most, Some((held.claimed.key.message_id, held.claimed.content))),
        };
        if most <= 1 {
            requests.push(vec![held]);
            continue;
        }
        let kind = (Arc::as_ptr(&held.account), channel, same);
        match open.get(&kind).and_then(|n: &usize| requests.get_mut(*n)).filter(|request| request.len() < most) {
            Some(request) => request.push(held),
            None => {
                open.insert(kind, requests.len());
                requests.push(vec![held]);
            }
        }
    }
    requests
}

/// One request, or the decision not to make it; always ends with something to settle for each delivery.
pub async fn call(hub: &Hub, request: Vec<HeldDelivery>) -> Vec<Settle> {
    let mut settles = Vec::with_capacity(request.len());
    let mut asked = Vec::with_capacity(request.len());
    for held in request {
        match reason_not_to_call(hub, &held) {
            Some(outcome) => settles.push(settle_attempt(hub, &held, outcome, None)),
            None => asked.push(held),
        }
    }
    let Some(first) = asked.first_mut() else { return settles };
    let turn = pace::take_turn(hub, &first.account, &first.claimed.recipient).await;
    // A channel that takes turns at a destination makes a request for each delivery: the first is the only one.
    let way = match turn {
        Ok(line) => acquire_destination(hub, first).await.map(|passage| (passage, line)),
        Err(outcome) => Err(outcome),
    };
    // Its turn came too late.
    let late = first.holder.since.elapsed() > hub.settings.timing.begin_within();
    let way = if late && way.is_ok() { Err(Outcome::Postponed) } else { way };
    let entered = match way {
        Ok(way) => route::acquire(hub, &first.account, first.reservation.take()).await.map(|permit| (way, permit)),
        Err(outcome) => Err(outcome),
    };
    let ((mut passage, line), mut permit) = match entered {
        Ok(entered) => entered,
        Err(outcome) => {
            settles.extend(asked.iter().map(|held| settle_attempt(hub, held, outcome.clone(), None)));
            return settles;
        }
    };
    let called_at = hub.clock.now();
    // The permit may have been long in coming: the lease would be over before the answer, or what was taken has lapsed.
    let late = first.holder.since.elapsed() > hub.settings.timing.begin_within();
    let begun = if late { Err(Outcome::Postponed) } else { permit.begin(called_at) };
    if let Err(outcome) = begun {
        permit.answered(hub, std::slice::from_ref(&outcome)).await;
        settles.extend(asked.iter().map(|held| settle_attempt(hub, held, outcome.clone(), None)));
        return settles;
    }
    may_die_at("call.before");
    let outcomes = send(hub, &asked).await;
    may_die_at("call.after_answer");
    permit.answered(hub, &outcomes).await;
    // Before the next request to the same destination may be made.
    if let Some(first) = asked.first() {
        pace::record_outcomes(hub, &first.account, &first.claimed.recipient, called_at, &outcomes).await;
    }
    drop(line);
    if let Some(outcome) = outcomes.first() {
        passage.record_outcome(outcome);
    }
    if outcomes.iter().any(is_throttled) {
        load_tried_for(hub, &mut asked).await;
    }
    for (held, outcome) in asked.iter().zip(outcomes) {
        channel::after_answer(hub, &held.preparation, &outcome).await;
        settles.push(settle_attempt(hub, held, outcome, Some(called_at)));
    }
    settles
}

fn is_throttled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected { class, .. } if class.action() == RetryAction::RetryUncounted)
}

/// For how long these have been tried; read only where it matters. If it cannot be read, patience begins anew.
async fn load_tried_for(hub: &Hub, asked: &mut [HeldDelivery]) {
    let keys: Vec<DeliveryKey> = asked.iter().filter(|h| h.claimed.head.attempt > 1).map(HeldDelivery::key).collect();
    let since = store::attempt::tried_since(hub.store.engine(), &keys).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, deliveries = keys.len(), "since when they have been tried could not be read");
        HashMap::new()
    });
    let now = hub.clock.now();
    for held in asked {
        let waited = since.get(&held.key()).and_then(|since| (now - since).to_std().ok());
        held.tried_for = waited.unwrap_or_default();
    }
}

/// Why a delivery is not called, if it is not.
fn reason_not_to_call(hub: &Hub, held: &HeldDelivery) -> Option<Outcome> {
    let head = held.claimed.head;
    if head.expires_at.is_some_and(|worthless| worthless <= hub.clock.now()) {
        Some(Outcome::Expired)
    } else if head.cancel_requested {
        Some(Outcome::Canceled)
    } else if hub.shutdown.is_stopping() {
        Some(Outcome::Released)
    } else if held.holder.since.elapsed() > hub.settings.timing.begin_within() {
        // Not begun in time to end within the lease.
        Some(Outcome::Postponed)
    } else if held.request().is_none() {
        Some(Outcome::Rejected {
            class: ErrorClass::Content,
            code: "content_missing".into(),
            detail: "its content is not in the books".into(),
            retry_after: None,
        })
    } else {
        None
    }
}

fn settle_attempt(hub: &Hub, held: &HeldDelivery, outcome: Outcome, called_at: Option<DateTime<Utc>>) -> Settle {
    let (provider, kind) = (held.account.name(), outcome.kind().as_str());
    let HeldDelivery { on_unknown, begins_recorded, .. } = *held;
    let profile = held.account.terms.profile;
    let receipt_within = held.receipt_within();
    let waited = held.tried_for;
    let preparation = &held.preparation;
    let call =
        CallDetails { provider, profile, on_unknown, begins_recorded, called_at, receipt_within, waited, preparation };
    let settle = settle_of(hub, &held.claimed, held.holder, outcome, Some(call));
    let (status, reason) = (settle.step.status, settle.step.reason.unwrap_or_default());
    hub.metrics.outcomes.with_label_values(&[provider, kind, reason]).inc();
    if called_at.is_some() && status == Status::Scheduled {
        hub.metrics.retries.with_label_values(&[provider, reason]).inc();
    }
    tracing::debug!(
        delivery = %held.claimed.key, attempt = held.claimed.head.attempt, provider, outcome = kind, %status, reason,
        "attempt ended"
    );
    if status == Status::Scheduled && held.claimed.head.has_fallback && !settle.step.refund {
        let (channel, attempt) = (held.claimed.head.channel, held.claimed.head.attempt);
        tracing::info!(delivery = %held.claimed.key, %channel, reason, "retry attempt {attempt}");
    }
    settle
}

/// Takes the place that its channel asks for at the destination, for as long as the call can still begin in time.
async fn acquire_destination(hub: &Hub, held: &mut HeldDelivery) -> std::result::Result<DestinationPermit, Outcome> {
    let until = held.holder.since + hub.settings.timing.begin_within();
    channel::acquire(hub, &mut held.preparation, until).await
}

/// As many outcomes as there are deliveries.
async fn send(hub: &Hub, asked: &[HeldDelivery]) -> Vec<Outcome> {
    let Some(first) = asked.first() else { return Vec::new() };
    let mut letters: Vec<SendRequest<'_>> = asked.iter().filter_map(HeldDelivery::request).collect();
    let provider = &first.account.provider;
    let began = Instant::now();
    let sending = async {
        match letters.pop() {
            Some(letter) if letters.is_empty() && first.looks_up_first() => {
                vec![look_up_and_send(provider, letter).await]
            }
            Some(letter) if letters.is_empty() => vec![provider.send(letter).await],
            Some(letter) => {
                letters.push(letter);
                provider.send_batch(letters).await
            }
            None => Vec::new(),
        }
    };
    // A panicking adapter ends its own attempts only. It may have called the provider before it panicked.
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let nobody_knows = |code, detail: &str| vec![Outcome::Unknown { code, detail: detail.into() }; asked.len()];
    let outcomes = match answer(hub, asked, provider.extra_time(), sending).await {
        Ok(Ok(outcomes)) if outcomes.len() == asked.len() => outcomes,
        Ok(Ok(_)) => nobody_knows("answer_incomplete", "the provider's adapter lost count of what it sent"),
        Ok(Err(_panic)) => {
            tracing::error!(
                delivery = %first.claimed.key, provider = provider.name(),
                "the provider's adapter panicked"
            );
            nobody_knows("sender_panicked", "our own code failed while sending")
        }
        Err(why) => nobody_knows("no_answer", why),
    };
    observe(&hub.metrics.call_seconds, &[provider.name()], began.elapsed());
    outcomes
}

/// Waits for a call as long as its provider may take: the call budget, and `extra` where the protocol lets the other
/// side answer late. Then the lease is extended meanwhile, and a process that stops waits until its grace is nearly
/// over. Fails with the reason why there is no answer.
async fn answer<T>(
    hub: &Hub,
    asked: &[HeldDelivery],
    extra: Duration,
    call: impl Future<Output = T>,
) -> std::result::Result<T, &'static str> {
    let timing = &hub.settings.timing;
    let call = tokio::time::timeout(timing.call_budget() + extra, call);
    if extra.is_zero() {
        return call.await.map_err(|_elapsed| "no answer within the call budget");
    }
    let stopped = async {
        hub.shutdown.stopping().await;
        tokio::time::sleep(timing.call_grace()).await;
    };
    tokio::select! {
        answer = call => answer.map_err(|_elapsed| "no answer within the time that the provider may take"),
        never = keep_leases(hub, asked) => match never {},
        () = stopped => Err("this process stopped while the provider's answer was still to come"),
    }
}

/// Extends the leases of a running call three times a lease, so that one failure to do so loses none. A worker that
/// dies extends nothing: the reaper comes one lease later.
async fn keep_leases(hub: &Hub, asked: &[HeldDelivery]) -> Infallible {
    let every = hub.settings.timing.lease() / 3;
    let mut due = asked.iter().map(|held| held.holder.since).min().unwrap_or_else(Instant::now);
    loop {
        due = Instant::now().max(due + every);
        tokio::time::sleep_until(due.into()).await;
        let attempts = asked.iter().map(|held| (held.key(), held.claimed.head.attempt, held.holder.worker)).collect();
        // A task of its own: when the answer comes, this is dropped, and a statement must not be dropped half-way.
        let _waited = hub.shutdown.spawn(extend_leases(hub.clone(), attempts)).await;
    }
}

async fn extend_leases(hub: Hub, attempts: Vec<(DeliveryKey, i16, Tsid)>) {
    let lease = hub.settings.timing.lease();
    for (key, attempt, worker) in attempts {
        match store::delivery::extend_lease(hub.store.engine(), key, attempt, worker, lease).await {
            Ok(true) => tracing::debug!(delivery = %key, attempt, "lease extended: the answer is still to come"),
            Ok(false) => {
                tracing::debug!(delivery = %key, attempt, "no lease to extend: the attempt has ended or was lost")
            }
            Err(e) => tracing::warn!(delivery = %key, attempt, error = %e, "the lease could not be extended"),
        }
    }
}

/// What may have been sent is asked for first, where the provider can tell.
async fn look_up_and_send(provider: &Arc<dyn Provider>, letter: SendRequest<'_>) -> Outcome {
    match provider.lookup(letter.clone()).await {
        LookupResult::Found { provider_ref } => Outcome::Accepted { provider_ref },
        LookupResult::NotFound => provider.send(letter).await,
        LookupResult::Inconclusive => Outcome::Unknown {
            code: "lookup_failed",
            detail: "an earlier attempt may have been taken, and the provider could not say".into(),
        },
    }
}
