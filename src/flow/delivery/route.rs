//! Route: which provider of its channel a delivery goes to, and whether that may be asked now.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{breaker, limit, pace};
use crate::hub::Hub;
use crate::hub::provider_state::{PROBE_RECHECK, ProviderState, Reservation};
use crate::model::breaker::{BreakerState, SharedProviderState, Verdict, verdict};
use crate::model::capability::Batch;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::provider::Account;
use crate::store::delivery::ClaimedDelivery;

/// Where a delivery goes, or what to settle instead.
pub type Route = Result<(Arc<Account>, Option<Reservation>), Outcome>;

/// The provider of its channel a delivery goes to; what to settle instead where none can take it now. By weight, and
/// rather not to the one that just failed it; those of weight 0 only when no other can.
pub fn choose(hub: &Hub, claimed: &ClaimedDelivery) -> Route {
    let channel = claimed.head.channel;
    let providers = hub.provider_states.of(channel);
    let last = claimed.provider.as_deref().filter(|_| claimed.head.attempt > 1);
    // What may have been taken is asked for where it was sent, and nowhere else.
    let bound = last.filter(|_| claimed.head.possibly_sent && looks_up(hub, claimed));
    if bound.is_some_and(|name| !providers.iter().any(|provider| provider.account.name() == name)) {
        return Err(Outcome::Unknown {
            code: "lookup_failed",
            detail: "an earlier attempt may have been taken by a provider that is not in the settings any more".into(),
        });
    }
    if let [only] = providers
        && only.is_unrestricted()
        && !pace::any_paced(hub)
    {
        return Ok((only.account.clone(), None));
    }
    let now = hub.clock.now();
    let (mut can, mut soonest) = (Vec::with_capacity(providers.len()), None::<Outcome>);
    for (n, provider) in providers.iter().enumerate() {
        if bound.is_some_and(|name| name != provider.account.name()) {
            continue;
        }
        let may_go = provider.check_admission(now);
        match may_go.and_then(|()| pace::check(hub, &provider.account, &claimed.recipient, now)) {
            Ok(()) => can.push((n, provider.account.terms.weight)),
            Err(why) => soonest = soonest.filter(|other| until(other) <= until(&why)).or(Some(why)),
        }
    }
    let is_last = |n: &usize| providers.get(*n).is_some_and(|provider| last == Some(provider.account.name()));
    let choices = [
        can.iter().copied().filter(|(n, weight)| *weight > 0 && !is_last(n)).collect::<Vec<_>>(),
        can.iter().copied().filter(|(n, _)| !is_last(n)).collect(),
        can,
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

/// A place at a provider with a limit or in trouble.
fn reserve(provider: &Arc<ProviderState>, channel: Channel, now: DateTime<Utc>) -> Option<Reservation> {
    if provider.is_unrestricted() {
        return None;
    }
    // What goes together with others needs one request for all of them: it is taken when that is known.
    let alone = provider.account.capability(channel).is_none_or(|c| c.batch == Batch::One);
    Some(provider.reserve(alone.then_some(now)))
}

/// Since when, and why, no provider of a channel can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downtime {
    pub since: DateTime<Utc>,
    pub reason: String,
}

/// Whether every provider of a channel is down: its breaker open or being probed, or paused while another's is. Not
/// when one may be probed: something has to go there, or it would never be found to work again.
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

/// Permission to make one request.
pub struct CallPermit {
    provider: Arc<ProviderState>,
    /// Held until it has an answer.
    reservation: Option<Reservation>,
    /// It is a probe: the state it was begun in.
    probe: Option<SharedProviderState>,
}

/// Asks for permission right before a request; what to settle instead where there is none.
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
        tracing::warn!(provider, error = %e, "whether it may be asked could not be found out");
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
    /// The request is made now, unless what was taken for it lapsed meanwhile.
    pub fn begin(&mut self, now: DateTime<Utc>) -> Result<(), Outcome> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reservation.begin(now))
    }

    /// The request was made, and this came of it; or it was not made after all.
    pub async fn answered(mut self, hub: &Hub, outcomes: &[Outcome]) {
        if !self.provider.is_judged() {
            return;
        }
        let (said, now, probe) = (verdict(outcomes), hub.clock.now(), self.probe.take());
        match (said, &probe) {
            (Verdict::Healthy, None) => self.provider.record_success(now),
            (Verdict::NoEvidence, None) => (),
            (Verdict::Failing(_) | Verdict::Refusing(_), None) => {
                let refused = matches!(said, Verdict::Refusing(_));
                if let Some(seen) = self.provider.record_failure(now, refused) {
                    Box::pin(write_verdict(hub, &self.provider, seen, said, now)).await;
                    self.provider.end_opening();
                }
            }
            (_, Some(seen)) => {
                Box::pin(write_verdict(hub, &self.provider, seen.clone(), said, now)).await;
                self.provider.end_probe();
            }
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if self.probe.is_some() {
            // Nobody knows what came of it: the next may be made when it is not waited for any more.
            self.provider.end_probe();
        }
    }
}

/// What an answer makes of a provider's state.
async fn write_verdict(
    hub: &Hub,
    provider: &ProviderState,
    seen: SharedProviderState,
    said: Verdict,
    now: DateTime<Utc>,
) {
    let next = match said {
        Verdict::Healthy => seen.with_probe_answered(true, now),
        Verdict::NoEvidence => seen.with_probe_answered(false, now),
        Verdict::Failing(reason) => seen.with_breaker_opened(reason, false, now, rand::random()),
        Verdict::Refusing(reason) => seen.with_breaker_opened(reason, true, now, rand::random()),
    };
    if let Err(e) = breaker::write_state(hub, provider, &seen, next, now).await {
        let provider = provider.account.name();
        tracing::warn!(provider, error = %e, "its breaker could not be written; the next answer will");
    }
}
