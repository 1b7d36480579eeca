//! Route: the choice of a provider for a delivery, and the permit to call it.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{breaker, limit, pace};
use crate::hub::Hub;
use crate::hub::provider_state::{PROBE_RECHECK, ProviderState, Reservation};
use crate::model::breaker::{BreakerState, SharedProviderState, Verdict, verdict as verdict_of};
use crate::model::capability::Batch;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::provider::Account;
use crate::store::delivery::ClaimedDelivery;

/// The provider of a delivery, with a reservation where one is needed; or the outcome to settle instead.
pub type Route = Result<(Arc<Account>, Option<Reservation>), Outcome>;

/// Chooses the provider of its channel for a claimed delivery, by weighted round robin. Prefers providers other than
/// the one of its last attempt; those of weight 0 are used only if no other is available. A delivery whose last attempt
/// has to be looked up goes to the same provider.
///
/// # Errors
/// The outcome to settle instead where no provider can take it now: deferred to the earliest time, or unknown if the
/// provider to look it up at is gone from the settings.
pub fn choose(hub: &Hub, claimed: &ClaimedDelivery) -> Route {
    let channel = claimed.head.channel;
    let providers = hub.provider_states.of(channel);
    let last = claimed.provider.as_deref().filter(|_| claimed.head.attempt > 1);
    // An attempt that may have been taken is looked up where it was sent, and nowhere else.
    let bound = last.filter(|_| claimed.head.possibly_sent && looks_up(hub, claimed));
    if bound.is_some_and(|name| !providers.iter().any(|provider| provider.account.name() == name)) {
        return Err(Outcome::Unknown {
            code: "lookup_failed",
            detail: "an earlier attempt may have been taken by a provider that is no longer in the settings".into(),
        });
    }
    if let [only] = providers
        && only.is_unrestricted()
        && !pace::any_paced(hub)
    {
        return Ok((only.account.clone(), None));
    }
    let now = hub.clock.now();
    let (mut available, mut soonest) = (Vec::with_capacity(providers.len()), None::<Outcome>);
    for (n, provider) in providers.iter().enumerate() {
        if bound.is_some_and(|name| name != provider.account.name()) {
            continue;
        }
        let may_go = provider.check_admission(now);
        match may_go.and_then(|()| pace::check(hub, &provider.account, &claimed.recipient, now)) {
            Ok(()) => available.push((n, provider.account.terms.weight)),
            Err(why) => soonest = soonest.filter(|other| until(other) <= until(&why)).or(Some(why)),
        }
    }
    let is_last = |n: &usize| providers.get(*n).is_some_and(|provider| last == Some(provider.account.name()));
    let choices = [
        available.iter().copied().filter(|(n, weight)| *weight > 0 && !is_last(n)).collect::<Vec<_>>(),
        available.iter().copied().filter(|(n, _)| !is_last(n)).collect(),
        available,
    ];
    let among = choices.into_iter().find(|among| !among.is_empty()).unwrap_or_default();
    let Some(provider) = hub.provider_states.next_by_weight(channel, &among).and_then(|n| providers.get(n)) else {
        return Err(soonest.unwrap_or(Outcome::Postponed));
    };
    Ok((provider.account.clone(), reserve(provider, channel, now)))
}

fn until(outcome: &Outcome) -> Option<DateTime<Utc>> {
    if let Outcome::Deferred { until, .. } = outcome { Some(*until) } else { None }
}

fn looks_up(hub: &Hub, claimed: &ClaimedDelivery) -> bool {
    hub.providers.on_unknown(claimed.head.channel, &hub.settings.retry) >= OnUnknown::Lookup
}

/// A reservation, if the provider has a limit or is in trouble.
fn reserve(provider: &Arc<ProviderState>, channel: Channel, now: DateTime<Utc>) -> Option<Reservation> {
    if provider.is_unrestricted() {
        return None;
    }
    // Deliveries that share a request need one grant together; it is taken when the request is made.
    let alone = provider.account.capability(channel).is_none_or(|c| c.batch == Batch::One);
    Some(provider.reserve(alone.then_some(now)))
}

/// Since when, and why, no provider of a channel can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downtime {
    /// When the last of its providers went down.
    pub since: DateTime<Utc>,
    /// Why that provider's breaker opened.
    pub reason: String,
}

/// Returns the downtime of a channel of which every provider is down: its breaker is open or half-open, or it is paused
/// while the breaker of another is open. None while a provider may be probed: a delivery has to go there, otherwise its
/// recovery would never be noticed.
pub fn downtime(hub: &Hub, channel: Channel) -> Option<Downtime> {
    let now = hub.clock.now();
    let mut since: Option<Downtime> = None;
    for provider in hub.provider_states.of(channel) {
        if provider.is_unrestricted() {
            return None;
        }
        let state = provider.state();
        let at = match (state.breaker, state.paused_at) {
            (BreakerState::Closed, None) => return None,
            (BreakerState::Closed, Some(_)) => continue,
            (_, None) if state.next_probe_at(now).is_some_and(|at| at <= now) => return None,
            (BreakerState::Open | BreakerState::HalfOpen, _) => state.opened_at.unwrap_or(state.changed_at),
        };
        if since.as_ref().is_none_or(|since| since.since < at) {
            since = Some(Downtime { since: at, reason: state.reason.unwrap_or_default() });
        }
    }
    since
}

/// Permission to make one request to a provider.
pub struct CallPermit {
    provider: Arc<ProviderState>,
    /// Held until the answer is recorded.
    reservation: Option<Reservation>,
    /// Set if the request is a probe: the state that was written when it began.
    probe: Option<SharedProviderState>,
}

/// Acquires the permit for one request that is made right after. Leases a grant if the reservation has none, and writes
/// the beginning of a probe if the breaker is not closed.
///
/// # Errors
/// The outcome to settle instead: deferred if the provider cannot be called now, postponed if the database fails.
pub async fn acquire(hub: &Hub, account: &Account, reservation: Option<Reservation>) -> Result<CallPermit, Outcome> {
    let provider = hub.provider_states.named(account.name()).ok_or(Outcome::Postponed)?;
    if provider.is_unrestricted() && reservation.is_none() {
        return Ok(CallPermit { provider: provider.clone(), reservation: None, probe: None });
    }
    Box::pin(acquire_checked(hub, provider, reservation)).await
}

async fn acquire_checked(
    hub: &Hub,
    provider: &Arc<ProviderState>,
    reservation: Option<Reservation>,
) -> Result<CallPermit, Outcome> {
    let mut reservation = reservation.unwrap_or_else(|| provider.reserve(None));
    let unread = |e: crate::error::Error| {
        let provider = provider.account.name();
        tracing::warn!(
            provider, error = %e,
            "the state or limit of a provider could not be read; the delivery is postponed"
        );
        Outcome::Postponed
    };
    let now = hub.clock.now();
    provider.check_callable(now)?;
    if reservation.needs_grant(now) {
        let granted = limit::lease_one(hub, provider).await.map_err(unread)?;
        reservation.grant(granted.ok_or_else(|| provider.limited_outcome())?);
    }
    let seen = provider.state();
    let mut probe = None;
    if seen.breaker != BreakerState::Closed {
        let lasting = hub.settings.timing.call_budget() + hub.settings.timing.call_budget();
        let another = || Outcome::deferred(now + PROBE_RECHECK, "breaker_open");
        let probing = seen.with_probe_begun(now, lasting).ok_or_else(another)?;
        if !breaker::write_state(hub, provider, &seen, probing.clone(), now).await.map_err(unread)? {
            return Err(another());
        }
        provider.begin_probe();
        probe = Some(probing);
    }
    Ok(CallPermit { provider: provider.clone(), reservation: Some(reservation), probe })
}

impl CallPermit {
    /// Uses the grant for a request that is made at `now`.
    ///
    /// # Errors
    /// The outcome to settle instead: the grant has expired.
    pub fn begin(&mut self, now: DateTime<Utc>) -> Result<(), Outcome> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reservation.begin(now))
    }

    /// Records the outcomes of the request, or that it was not made, in the provider's breaker. A breaker that changes
    /// is written before this returns; a failure to write is logged.
    pub async fn record_outcomes(mut self, hub: &Hub, outcomes: &[Outcome]) {
        if !self.provider.is_judged() {
            return;
        }
        let (verdict, now, probe) = (verdict_of(outcomes), hub.clock.now(), self.probe.take());
        match (verdict, &probe) {
            (Verdict::Healthy, None) => self.provider.record_success(now),
            (Verdict::NoEvidence, None) => (),
            (Verdict::Failing(_) | Verdict::Refusing(_), None) => {
                let refused = matches!(verdict, Verdict::Refusing(_));
                if let Some(seen) = self.provider.record_failure(now, refused) {
                    Box::pin(write_verdict(hub, &self.provider, seen, verdict, now)).await;
                    self.provider.end_opening();
                }
            }
            (_, Some(seen)) => {
                Box::pin(write_verdict(hub, &self.provider, seen.clone(), verdict, now)).await;
                self.provider.end_probe();
            }
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if self.probe.is_some() {
            // The probe has no outcome; the next one may begin when this one's time is over.
            self.provider.end_probe();
        }
    }
}

/// Writes the state that follows from a verdict.
async fn write_verdict(
    hub: &Hub,
    provider: &ProviderState,
    seen: SharedProviderState,
    verdict: Verdict,
    now: DateTime<Utc>,
) {
    let next = match verdict {
        Verdict::Healthy => seen.with_probe_answered(true, now),
        Verdict::NoEvidence => seen.with_probe_answered(false, now),
        Verdict::Failing(reason) => seen.with_breaker_opened(reason, false, now, rand::random()),
        Verdict::Refusing(reason) => seen.with_breaker_opened(reason, true, now, rand::random()),
    };
    if let Err(e) = breaker::write_state(hub, provider, &seen, next, now).await {
        let provider = provider.account.name();
        tracing::warn!(
            provider, error = %e,
            "the breaker of a provider could not be written; the next answer is written instead"
        );
    }
}
