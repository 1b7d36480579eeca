//! Route: which provider of its channel a delivery goes to, and whether that may be asked now.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, TimeDelta, Utc};

use super::pace;
use crate::flow::traffic::{self, Inner, Way};
use crate::hub::Hub;
use crate::model::breaker::{Breaker, State, Verdict, verdict};
use crate::model::capability::Batch;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::provider::Account;
use crate::store::delivery::Claimed;

/// A delivery's place on its way, where the way is not plain. Given up when dropped, with what was taken for it.
pub struct Seat {
    way: Arc<Way>,
    /// Until when the request that was taken for it may be made.
    grant: Option<DateTime<Utc>>,
    /// It needs one that was not taken yet.
    waits: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.way.inner();
        inner.seats = inner.seats.saturating_sub(1);
        inner.waiting = inner.waiting.saturating_sub(usize::from(self.waits));
        if let Some(until) = self.grant.take() {
            inner.put_back(until);
        }
    }
}

/// Where a delivery goes, or what to settle instead.
pub type Chosen = Result<(Arc<Account>, Option<Seat>), Outcome>;

/// Paused for nobody knows how long: it is looked at again after this.
const PAUSED_FOR: TimeDelta = TimeDelta::seconds(30);
/// Another's probe, or the first calls of a recovery, are waited for.
const SOON: TimeDelta = TimeDelta::seconds(1);

/// The provider of its channel a delivery goes to; what to settle instead where none can take it now. By weight, and rather
/// not to the one that just failed it; those of weight 0 only when no other can.
pub fn choose(hub: &Hub, claimed: &Claimed) -> Chosen {
    let channel = claimed.head.channel;
    let ways = hub.traffic.of(channel);
    let last = claimed.provider.as_deref().filter(|_| claimed.head.attempt > 1);
    // What may have been taken is asked for where it was sent, and nowhere else.
    let bound = last.filter(|_| claimed.head.possibly_sent && looks_up(hub, claimed));
    if bound.is_some_and(|name| !ways.iter().any(|way| way.account.name() == name)) {
        return Err(Outcome::Unknown {
            code: "lookup_failed",
            detail: "an earlier attempt may have been taken by a provider that is not in the settings any more".into(),
        });
    }
    if let [only] = ways
        && only.is_plain()
        && !pace::is_paced(hub)
    {
        return Ok((only.account.clone(), None));
    }
    let now = hub.clock.now();
    let (mut can, mut soonest) = (Vec::with_capacity(ways.len()), None::<Outcome>);
    for (n, way) in ways.iter().enumerate() {
        if bound.is_some_and(|name| name != way.account.name()) {
            continue;
        }
        match stands(way, now).and_then(|()| pace::stands(hub, &way.account, &claimed.recipient, now)) {
            Ok(()) => can.push((n, way.account.terms.weight)),
            Err(why) => soonest = soonest.filter(|other| until(other) <= until(&why)).or(Some(why)),
        }
    }
    let is_last = |n: &usize| ways.get(*n).is_some_and(|way| last == Some(way.account.name()));
    let choices = [
        can.iter().copied().filter(|(n, weight)| *weight > 0 && !is_last(n)).collect::<Vec<_>>(),
        can.iter().copied().filter(|(n, _)| !is_last(n)).collect(),
        can,
    ];
    let among = choices.into_iter().find(|among| !among.is_empty()).unwrap_or_default();
    let Some(way) = hub.traffic.turn(channel, &among).and_then(|n| ways.get(n)) else {
        return Err(soonest.unwrap_or(Outcome::Postponed));
    };
    Ok((way.account.clone(), sit(way, channel, now)))
}

fn until(outcome: &Outcome) -> Option<DateTime<Utc>> {
    if let Outcome::Deferred { until, .. } = outcome { Some(*until) } else { None }
}

fn looks_up(hub: &Hub, claimed: &Claimed) -> bool {
    hub.providers.on_unknown(claimed.head.channel, &hub.settings.retry) >= OnUnknown::Lookup
}

/// A place on a way that is not plain.
fn sit(way: &Arc<Way>, channel: Channel, now: DateTime<Utc>) -> Option<Seat> {
    if way.is_plain() {
        return None;
    }
    // What goes together with others needs one for all of them: it is drawn when that is known.
    let alone = way.account.of(channel).is_none_or(|c| c.batch == Batch::One);
    let mut inner = way.inner();
    inner.seats += 1;
    let grant = if alone && way.limit().is_some() { inner.draw(now) } else { None };
    let waits = way.limit().is_some() && grant.is_none();
    inner.waiting += usize::from(waits);
    drop(inner);
    Some(Seat { way: way.clone(), grant, waits })
}

/// Whether a delivery may go this way now; else until when it may not, and why.
fn stands(way: &Way, now: DateTime<Utc>) -> Result<(), Outcome> {
    if way.is_plain() {
        return Ok(());
    }
    let inner = way.inner();
    closed(&inner, now)?;
    if inner.state.breaker != Breaker::Closed && (inner.probing || inner.seats > 0) {
        return Err(Outcome::deferred(now + SOON, "breaker_open"));
    }
    if inner.ramp.is_some_and(|most| inner.seats >= most) {
        return Err(Outcome::deferred(now + SOON, "breaker_open"));
    }
    if way.limit().is_some() && !inner.may_have(now) {
        return Err(Outcome::deferred(inner.ask_at, "limited"));
    }
    Ok(())
}

/// Paused, or open and not to be probed yet.
fn closed(inner: &Inner, now: DateTime<Utc>) -> Result<(), Outcome> {
    if inner.state.paused_at.is_some() {
        return Err(Outcome::deferred(now + PAUSED_FOR, "provider_paused"));
    }
    match inner.state.probe_at(now) {
        // Another's probe, which may be answered at any moment.
        Some(at) if at > now && inner.state.breaker == Breaker::HalfOpen => {
            Err(Outcome::deferred(at.min(now + SOON), "breaker_open"))
        }
        Some(at) if at > now => Err(Outcome::deferred(at, "breaker_open")),
        _ => Ok(()),
    }
}

/// Since when, and why, no provider of a channel can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    pub at: DateTime<Utc>,
    pub reason: String,
}

/// Whether every provider of a channel is down: its breaker open or being probed, or paused while another's is. Not when one
/// may be probed: something has to go there, or it would never be found to work again.
pub fn is_down(hub: &Hub, channel: Channel) -> Option<Since> {
    let (ways, now) = (hub.traffic.of(channel), hub.clock.now());
    let mut since: Option<Since> = None;
    for way in ways {
        if way.is_plain() {
            return None;
        }
        let inner = way.inner();
        let state = &inner.state;
        let at = match (state.breaker, state.paused_at) {
            (Breaker::Closed, None) => return None,
            (Breaker::Closed, Some(_)) => continue,
            (_, None) if state.probe_at(now).is_some_and(|at| at <= now) => return None,
            (Breaker::Open | Breaker::HalfOpen, _) => state.opened_at.unwrap_or(state.changed_at),
        };
        if since.as_ref().is_none_or(|since| since.at < at) {
            since = Some(Since { at, reason: state.reason.clone().unwrap_or_default() });
        }
    }
    since
}

/// Leave to make one request.
pub struct Pass {
    way: Arc<Way>,
    /// Held until it has an answer.
    seat: Option<Seat>,
    /// It is a probe: the state it was begun in.
    probe: Option<State>,
}

/// Asks for leave right before a request; what to settle instead where there is none.
pub async fn enter(hub: &Hub, account: &Account, seat: Option<Seat>) -> Result<Pass, Outcome> {
    let way = hub.traffic.named(account.name()).ok_or(Outcome::Postponed)?;
    if way.is_plain() && seat.is_none() {
        return Ok(Pass::new(way.clone(), None, None));
    }
    Box::pin(enter_with_care(hub, way, seat)).await
}

async fn enter_with_care(hub: &Hub, way: &Arc<Way>, seat: Option<Seat>) -> Result<Pass, Outcome> {
    let mut seat = seat.unwrap_or_else(|| {
        way.inner().seats += 1;
        Seat { way: way.clone(), grant: None, waits: false }
    });
    let unread = |e: crate::error::Error| {
        tracing::warn!(provider = way.account.name(), error = %e, "whether it may be asked could not be found out");
        Outcome::Postponed
    };
    let now = hub.clock.now();
    closed(&way.inner(), now)?;
    if way.limit().is_some() && seat.grant.is_none_or(|until| until < now) {
        // One that lapsed is put back, to be told so.
        if let Some(lapsed) = seat.grant.take() {
            way.inner().put_back(lapsed);
        }
        seat.grant = traffic::lease_one(hub, way).await.map_err(unread)?;
        if seat.grant.is_none() {
            return Err(Outcome::deferred(way.inner().ask_at, "limited"));
        }
    }
    let seen = way.inner().state.clone();
    let mut probe = None;
    if seen.breaker != Breaker::Closed {
        let lasting = hub.settings.timing.call_budget() + hub.settings.timing.call_budget();
        let probing = seen.probing(now, lasting);
        let probing = probing.ok_or_else(|| Outcome::deferred(now + SOON, "breaker_open"))?;
        if !traffic::write(hub, way, &seen, probing.clone(), now).await.map_err(unread)? {
            return Err(Outcome::deferred(now + SOON, "breaker_open"));
        }
        way.inner().probing = true;
        probe = Some(probing);
    }
    Ok(Pass::new(way.clone(), Some(seat), probe))
}

impl Pass {
    fn new(way: Arc<Way>, seat: Option<Seat>, probe: Option<State>) -> Pass {
        way.in_flight.fetch_add(1, Ordering::Relaxed);
        Pass { way, seat, probe }
    }

    /// The request is made now, unless what was taken for it lapsed meanwhile.
    pub fn begin(&mut self, now: DateTime<Utc>) -> Result<(), Outcome> {
        let Some(seat) = self.seat.as_mut() else { return Ok(()) };
        let mut inner = self.way.inner();
        match seat.grant {
            // Put back with its seat, to be told so.
            Some(until) if until < now => return Err(Outcome::deferred(inner.ask_at, "limited")),
            Some(until) => inner.made(until, now),
            None => (),
        }
        seat.grant = None;
        inner.waiting = inner.waiting.saturating_sub(usize::from(std::mem::take(&mut seat.waits)));
        Ok(())
    }

    /// The request was made, and this came of it; or it was not made after all.
    pub async fn answered(mut self, hub: &Hub, outcomes: &[Outcome]) {
        if !self.way.is_judged() {
            return;
        }
        let (said, now, probe) = (verdict(outcomes), hub.clock.now(), self.probe.take());
        match (said, &probe) {
            (Verdict::Good, None) => self.way.went_well(now),
            (Verdict::Nothing, None) => (),
            (Verdict::Bad(_) | Verdict::Refused(_), None) => {
                let refused = matches!(said, Verdict::Refused(_));
                if self.way.went_badly(now, refused) {
                    let seen = self.way.inner().state.clone();
                    Box::pin(change(hub, &self.way, seen, said, now)).await;
                    self.way.inner().opening = false;
                }
            }
            (_, Some(seen)) => {
                Box::pin(change(hub, &self.way, seen.clone(), said, now)).await;
                self.way.inner().probing = false;
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.way.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.probe.is_some() {
            // Nobody knows what came of it: the next may be made when it is not waited for any more.
            self.way.inner().probing = false;
        }
    }
}

/// What an answer makes of a provider's state.
async fn change(hub: &Hub, way: &Way, seen: State, said: Verdict, now: DateTime<Utc>) {
    let next = match said {
        Verdict::Good => seen.probed(true, now),
        Verdict::Nothing => seen.probed(false, now),
        Verdict::Bad(reason) => seen.opened(reason, false, now, rand::random()),
        Verdict::Refused(reason) => seen.opened(reason, true, now, rand::random()),
    };
    if let Err(e) = traffic::write(hub, way, &seen, next, now).await {
        tracing::warn!(provider = way.account.name(), error = %e, "its breaker could not be written; the next answer will");
    }
}
