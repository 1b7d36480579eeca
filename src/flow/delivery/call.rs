//! Call: one request to a provider for loaded deliveries, with no database connection held. It ends with an outcome to
//! settle for each delivery, whatever happens.

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

/// Groups loaded deliveries into requests: deliveries that may share a request do so, up to the provider's batch size,
/// in the order of the claim.
pub fn group_into_requests(held: Vec<HeldDelivery>) -> Vec<Vec<HeldDelivery>> {
    let mut requests: Vec<Vec<HeldDelivery>> = Vec::with_capacity(held.len());
    // By kind, the request that still has room.
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

/// Makes one request, or decides not to. Returns the outcome to settle for each delivery, in no particular order.
///
/// Order of the steps: place in line at the destination (`pace`), permit of the channel's destination, permit of the
/// provider (`route`), call, verdicts to breaker and pace. A step that fails settles all deliveries without a call, and
/// none of them loses an attempt.
pub async fn call(hub: &Hub, request: Vec<HeldDelivery>) -> Vec<Settle> {
    let mut settles = Vec::with_capacity(request.len());
    let mut deliveries = Vec::with_capacity(request.len());
    for held in request {
        match reason_not_to_call(hub, &held) {
            Some(outcome) => settles.push(settle_attempt(hub, &held, outcome, None)),
            None => deliveries.push(held),
        }
    }
    let Some(first) = deliveries.first_mut() else { return settles };
    let turn = pace::take_turn(hub, &first.account, &first.claimed.recipient).await;
    // A channel with permits per destination sends each delivery alone, so the first delivery is the only one.
    let destination = match turn {
        Ok(destination_lock) => {
            acquire_destination(hub, first).await.map(|destination_permit| (destination_permit, destination_lock))
        }
        Err(outcome) => Err(outcome),
    };
    // The turn came so late that the call could outlive the lease.
    let late = first.holder.since.elapsed() > hub.settings.timing.begin_within();
    let destination = if late && destination.is_ok() { Err(Outcome::Postponed) } else { destination };
    let entered = match destination {
        Ok(destination) => {
            route::acquire(hub, &first.account, first.reservation.take()).await.map(|permit| (destination, permit))
        }
        Err(outcome) => Err(outcome),
    };
    let ((mut destination_permit, destination_lock), mut permit) = match entered {
        Ok(entered) => entered,
        Err(outcome) => {
            settles.extend(deliveries.iter().map(|held| settle_attempt(hub, held, outcome.clone(), None)));
            return settles;
        }
    };
    let called_at = hub.clock.now();
    // The wait for the permit may have been long: the lease would end before the answer, or the grant has expired.
    let late = first.holder.since.elapsed() > hub.settings.timing.begin_within();
    let begun = if late { Err(Outcome::Postponed) } else { permit.begin(called_at) };
    if let Err(outcome) = begun {
        permit.record_outcomes(hub, std::slice::from_ref(&outcome)).await;
        settles.extend(deliveries.iter().map(|held| settle_attempt(hub, held, outcome.clone(), None)));
        return settles;
    }
    may_die_at("call.before");
    let outcomes = send(hub, &deliveries).await;
    may_die_at("call.after_answer");
    permit.record_outcomes(hub, &outcomes).await;
    // Before the lock of the destination is released, so that the next request sees the new pace.
    if let Some(first) = deliveries.first() {
        pace::record_outcomes(hub, &first.account, &first.claimed.recipient, called_at, &outcomes).await;
    }
    drop(destination_lock);
    if let Some(outcome) = outcomes.first() {
        destination_permit.record_outcome(outcome);
    }
    if outcomes.iter().any(is_throttled) {
        load_tried_for(hub, &mut deliveries).await;
    }
    for (held, outcome) in deliveries.iter().zip(outcomes) {
        channel::after_answer(hub, &held.preparation, &outcome).await;
        settles.push(settle_attempt(hub, held, outcome, Some(called_at)));
    }
    settles
}

fn is_throttled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected { class, .. } if class.action() == RetryAction::RetryUncounted)
}

/// Reads how long these deliveries have been tried, which only throttled ones need. If it cannot be read, the waiting
/// time counts from now.
async fn load_tried_for(hub: &Hub, deliveries: &mut [HeldDelivery]) {
    let keys: Vec<DeliveryKey> =
        deliveries.iter().filter(|h| h.claimed.head.attempt > 1).map(HeldDelivery::key).collect();
    let since = store::attempt::tried_since(hub.store.engine(), &keys).await.unwrap_or_else(|e| {
        tracing::warn!(
            error = %e, deliveries = keys.len(),
            "the first attempts of throttled deliveries could not be read; their waiting time counts from now"
        );
        HashMap::new()
    });
    let now = hub.clock.now();
    for held in deliveries {
        let waited = since.get(&held.key()).and_then(|since| (now - since).to_std().ok());
        held.tried_for = waited.unwrap_or_default();
    }
}

/// The outcome of a delivery that must not be called; None if it may be.
fn reason_not_to_call(hub: &Hub, held: &HeldDelivery) -> Option<Outcome> {
    let head = held.claimed.head;
    if head.expires_at.is_some_and(|worthless| worthless <= hub.clock.now()) {
        Some(Outcome::Expired)
    } else if head.cancel_requested {
        Some(Outcome::Canceled)
    } else if hub.shutdown.is_stopping() {
        Some(Outcome::Released)
    } else if held.holder.since.elapsed() > hub.settings.timing.begin_within() {
        // Too late: the call could outlive the lease.
        Some(Outcome::Postponed)
    } else if held.request().is_none() {
        Some(Outcome::Rejected {
            class: ErrorClass::Content,
            code: "content_missing".into(),
            detail: "the stored message has no content for this delivery".into(),
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
    let partner_id = held.message.partner_id;
    let call = CallDetails {
        partner_id,
        provider,
        profile,
        on_unknown,
        begins_recorded,
        called_at,
        receipt_within,
        waited,
        preparation,
    };
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

/// Takes the permit that its channel requires for the destination; waits as long as the call can still begin in time.
async fn acquire_destination(hub: &Hub, held: &mut HeldDelivery) -> std::result::Result<DestinationPermit, Outcome> {
    let until = held.holder.since + hub.settings.timing.begin_within();
    channel::acquire(hub, &mut held.preparation, until).await
}

/// Sends one request for these deliveries. Returns as many outcomes as there are deliveries, in their order.
async fn send(hub: &Hub, deliveries: &[HeldDelivery]) -> Vec<Outcome> {
    let Some(first) = deliveries.first() else { return Vec::new() };
    let mut requests: Vec<SendRequest<'_>> = deliveries.iter().filter_map(HeldDelivery::request).collect();
    let provider = &first.account.provider;
    let began = Instant::now();
    let sending = async {
        if channel::ends_here(first.claimed.head.channel) {
            let held: Vec<_> = deliveries.iter().map(|held| (&held.claimed, &*held.message)).collect();
            return channel::deliver_here(hub, &held).await;
        }
        match requests.pop() {
            Some(request) if requests.is_empty() && first.looks_up_first() => {
                vec![look_up_and_send(provider, request).await]
            }
            Some(request) if requests.is_empty() => vec![provider.send(request).await],
            Some(request) => {
                requests.push(request);
                provider.send_batch(requests).await
            }
            None => Vec::new(),
        }
    };
    // A panic of an adapter ends its own attempts only. They are unknown: the provider may have been called before it.
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let unknown = |code, detail: &str| vec![Outcome::Unknown { code, detail: detail.into() }; deliveries.len()];
    let outcomes = match answer(hub, deliveries, provider.extra_time(), sending).await {
        Ok(Ok(outcomes)) if outcomes.len() == deliveries.len() => outcomes,
        Ok(Ok(_)) => {
            unknown("answer_incomplete", "the provider's adapter returned fewer or more outcomes than deliveries")
        }
        Ok(Err(_panic)) => {
            tracing::error!(
                delivery = %first.claimed.key, provider = provider.name(),
                "the provider's adapter panicked"
            );
            unknown("sender_panicked", "the hub's adapter of the provider failed while sending (see the log)")
        }
        Err(why) => unknown("no_answer", why),
    };
    observe(&hub.metrics.call_seconds, &[provider.name()], began.elapsed());
    outcomes
}

/// Waits for a call as long as its provider may take: the call budget, plus `extra` where the protocol lets the other
/// side answer late. With `extra` the leases are extended meanwhile, and a stopping process waits until its grace
/// period is nearly over. Fails with the reason why there is no answer.
async fn answer<T>(
    hub: &Hub,
    deliveries: &[HeldDelivery],
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
        never = keep_leases(hub, deliveries) => match never {},
        () = stopped => Err("this process stopped before the provider answered"),
    }
}

/// Extends the leases of a running call every third of a lease, so that one failed extension loses none. If the worker
/// dies, the reaper takes the deliveries back within one lease.
async fn keep_leases(hub: &Hub, deliveries: &[HeldDelivery]) -> Infallible {
    let every = hub.settings.timing.lease() / 3;
    let mut due = deliveries.iter().map(|held| held.holder.since).min().unwrap_or_else(Instant::now);
    loop {
        due = Instant::now().max(due + every);
        tokio::time::sleep_until(due.into()).await;
        let attempts =
            deliveries.iter().map(|held| (held.key(), held.claimed.head.attempt, held.holder.worker)).collect();
        // A task of its own: this future is dropped when the answer comes, and a statement must not be dropped
        // half-way.
        let _waited = hub.shutdown.spawn(extend_leases(hub.clone(), attempts)).await;
    }
}

async fn extend_leases(hub: Hub, attempts: Vec<(DeliveryKey, i16, Tsid)>) {
    let lease = hub.settings.timing.lease();
    for (key, attempt, worker) in attempts {
        match store::delivery::extend_lease(hub.store.engine(), key, attempt, worker, lease).await {
            Ok(true) => tracing::debug!(delivery = %key, attempt, "lease extended: the provider has not answered yet"),
            Ok(false) => {
                tracing::debug!(delivery = %key, attempt, "no lease to extend: the attempt has ended or was lost")
            }
            Err(e) => tracing::warn!(delivery = %key, attempt, error = %e, "the lease could not be extended"),
        }
    }
}

/// Asks the provider whether it took an earlier attempt, and sends only if it did not.
async fn look_up_and_send(provider: &Arc<dyn Provider>, request: SendRequest<'_>) -> Outcome {
    match provider.lookup(request.clone()).await {
        LookupResult::Found { provider_ref } => Outcome::Accepted { provider_ref },
        LookupResult::NotFound => provider.send(request).await,
        LookupResult::Inconclusive => Outcome::Unknown {
            code: "lookup_failed",
            detail: "the provider may have taken an earlier attempt, and the look-up of it failed".into(),
        },
    }
}
