//! What this process knows of one provider: its breaker, what was taken from its limit ahead, and how many deliveries
//! are to go there. All processes share breakers and limits in the database; what is known here keeps calls from
//! waiting for it. A provider without limit and trouble costs a look at one flag.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};

use super::lock::lock;
use crate::model::breaker::{Breaker, State, Window, ramped};
use crate::model::capability::Batch;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::limit::{RateLimit, Report, Taken};
use crate::model::pace::LimitedBy;
use crate::provider::Account;

pub struct ProviderState {
    pub account: Arc<Account>,
    /// No limit, no trouble, no pause.
    plain: AtomicBool,
    /// Good answers of one second: the second above, how many below.
    good: AtomicU64,
    inner: Mutex<Inner>,
    /// Held by the one task that takes from its limit.
    pub leasing: tokio::sync::Mutex<()>,
}

/// Held briefly, never over an await.
#[derive(Default)]
struct Inner {
    state: State,
    /// Requests that were taken: until when they may be made, and how many.
    hand: Vec<(DateTime<Utc>, u32)>,
    /// What became of those that were taken.
    reports: Vec<Report>,
    /// Free beyond that, when last asked.
    free: u32,
    /// Not worth asking before.
    ask_at: DateTime<Utc>,
    asked_at: DateTime<Utc>,
    /// Deliveries that are to go there.
    reserved: usize,
    /// Of these, for how many no request was taken yet.
    waiting: usize,
    /// A probe of ours is under way.
    probing: bool,
    /// A task of this process is writing that it opens.
    opening: bool,
    /// Calls at once, while it recovers.
    ramp: Option<usize>,
    window: Window,
}

const GOOD_BITS: u32 = 24;
const GOOD_MASK: u64 = (1 << GOOD_BITS) - 1;

/// Paused for nobody knows how long: it is looked at again after this.
const PAUSED_FOR: TimeDelta = TimeDelta::seconds(30);
/// Another's probe, or the first calls of a recovery, are waited for.
pub const SOON: TimeDelta = TimeDelta::seconds(1);

/// A delivery's place at a provider with a limit or in trouble. Given up when dropped, with the request that was taken
/// for it.
pub struct Reservation {
    provider: Arc<ProviderState>,
    /// Until when the request that was taken for it may be made.
    grant: Option<DateTime<Utc>>,
    /// It needs one that was not taken yet.
    waits: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut inner = self.provider.inner();
        inner.reserved = inner.reserved.saturating_sub(1);
        inner.waiting = inner.waiting.saturating_sub(usize::from(self.waits));
        if let Some(until) = self.grant.take() {
            inner.put_back(until);
        }
    }
}

impl Reservation {
    /// Whether it still needs a request from its provider's limit. One that lapsed is put back, to be reported so.
    pub fn needs_grant(&mut self, now: DateTime<Utc>) -> bool {
        if self.provider.limit().is_none() || self.grant.is_some_and(|until| until >= now) {
            return false;
        }
        if let Some(lapsed) = self.grant.take() {
            self.provider.inner().put_back(lapsed);
        }
        true
    }

    pub fn grant(&mut self, until: DateTime<Utc>) {
        self.grant = Some(until);
    }

    /// The request is made now, unless what was taken for it lapsed meanwhile: that is put back with the reservation.
    pub fn begin(&mut self, now: DateTime<Utc>) -> Result<(), Outcome> {
        let mut inner = self.provider.inner();
        match self.grant {
            Some(until) if until < now => return Err(inner.limited()),
            Some(until) => inner.reports.push(Report { until, made_at: Some(now) }),
            None => (),
        }
        self.grant = None;
        inner.waiting = inner.waiting.saturating_sub(usize::from(std::mem::take(&mut self.waits)));
        Ok(())
    }
}

impl ProviderState {
    pub fn new(account: Arc<Account>) -> ProviderState {
        ProviderState {
            plain: AtomicBool::new(account.terms.limit.is_none()),
            account,
            good: AtomicU64::new(0),
            inner: Mutex::default(),
            leasing: tokio::sync::Mutex::default(),
        }
    }

    /// It has no limit, no trouble and no pause.
    pub fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub fn limit(&self) -> Option<&RateLimit> {
        self.account.terms.limit.as_ref()
    }

    /// Its breaker and its pause, as they are known.
    pub fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// Whether answers open its breaker. Partners' endpoints are strangers: what they answer says nothing of a
    /// provider. A chat's destinations may be servers of their own, each with its own trouble (`pace`).
    pub fn is_judged(&self) -> bool {
        let of_destinations = self.account.provider.limited_by() == LimitedBy::Destination;
        !of_destinations && self.account.capabilities.iter().any(|c| !c.channel.calls_strangers())
    }

    fn level(&self, inner: &Inner) {
        let state = &inner.state;
        let troubled = state.paused_at.is_some() || state.breaker != Breaker::Closed || inner.ramp.is_some();
        self.plain.store(self.limit().is_none() && !troubled, Ordering::Relaxed);
    }

    /// A state that was read or written; one that is older than what is known is none. True when it is news.
    pub fn adopt(&self, state: State) -> bool {
        if state.changed_at <= self.inner().state.changed_at {
            return false;
        }
        self.take_over(state);
        true
    }

    /// A state that is the one in the database, be it older than what is known: the database may have been set back.
    pub fn take_over(&self, state: State) {
        let mut inner = self.inner();
        if state.breaker != Breaker::Closed {
            inner.ramp = None;
        } else if inner.state.breaker != Breaker::Closed {
            inner.ramp = Some(1);
            inner.window.clear();
        }
        inner.state = state;
        self.level(&inner);
    }

    /// Whether a delivery may go there now; else until when it may not, and why.
    pub fn may_go(&self, now: DateTime<Utc>) -> Result<(), Outcome> {
        if self.is_plain() {
            return Ok(());
        }
        let inner = self.inner();
        inner.may_be_asked(now)?;
        let probed = inner.state.breaker != Breaker::Closed && (inner.probing || inner.reserved > 0);
        if probed || inner.ramp.is_some_and(|most| inner.reserved >= most) {
            return Err(Outcome::deferred(now + SOON, "breaker_open"));
        }
        if self.limit().is_some() && !inner.may_have(now) {
            return Err(inner.limited());
        }
        Ok(())
    }

    /// Not paused, and not open unless it is to be probed.
    pub fn may_be_asked(&self, now: DateTime<Utc>) -> Result<(), Outcome> {
        self.inner().may_be_asked(now)
    }

    /// A place for a delivery. `now`: with a request of what was taken from the limit, if one is left; None: without.
    pub fn reserve(self: &Arc<ProviderState>, now: Option<DateTime<Utc>>) -> Reservation {
        let limited = self.limit().is_some();
        let mut inner = self.inner();
        inner.reserved += 1;
        let grant = now.filter(|_| limited).and_then(|now| inner.draw(now));
        let waits = limited && grant.is_none();
        inner.waiting += usize::from(waits);
        drop(inner);
        Reservation { provider: self.clone(), grant, waits }
    }

    /// What to settle where its limit has nothing left.
    pub fn limited(&self) -> Outcome {
        self.inner().limited()
    }

    pub fn begin_probe(&self) {
        self.inner().probing = true;
    }

    pub fn end_probe(&self) {
        self.inner().probing = false;
    }

    /// It answered well.
    pub fn went_well(&self, now: DateTime<Utc>) {
        let second = u64::try_from(now.timestamp()).unwrap_or(0);
        let seen = self.good.load(Ordering::Relaxed);
        let same = seen >> GOOD_BITS == second && seen & GOOD_MASK < GOOD_MASK;
        let counted = || self.good.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !(same && counted()) {
            let mut inner = self.inner();
            self.count_good(&mut inner);
            // Nobody else sets another second without the lock.
            self.good.store(second << GOOD_BITS | 1, Ordering::Relaxed);
        }
        if !self.is_plain() {
            let mut inner = self.inner();
            inner.ramp = inner.ramp.and_then(ramped);
            self.level(&inner);
        }
    }

    fn count_good(&self, inner: &mut Inner) {
        let seen = self.good.swap(0, Ordering::Relaxed);
        let good = u32::try_from(seen & GOOD_MASK).unwrap_or(0);
        if good > 0 {
            inner.window.add(i64::try_from(seen >> GOOD_BITS).unwrap_or(0), good, 0);
        }
    }

    /// It answered badly. Some: that is enough, and the caller is the one to write that it opens, from this state on;
    /// it calls `opening_ended` then.
    pub fn went_badly(&self, now: DateTime<Utc>, at_once: bool) -> Option<State> {
        let mut inner = self.inner();
        self.count_good(&mut inner);
        inner.window.add(now.timestamp(), 0, 1);
        let enough = at_once || inner.window.opens(now.timestamp(), inner.ramp.is_some());
        let ours = enough && inner.state.breaker == Breaker::Closed && !inner.opening;
        inner.opening |= ours;
        ours.then(|| inner.state.clone())
    }

    pub fn opening_ended(&self) {
        self.inner().opening = false;
    }

    /// How many deliveries of a channel may be claimed for it.
    pub fn room(&self, channel: Channel, now: DateTime<Utc>) -> i64 {
        if self.is_plain() {
            return i64::MAX;
        }
        let inner = self.inner();
        if inner.state.paused_at.is_some() {
            return 0;
        }
        if let Some(at) = inner.state.probe_at(now) {
            let may_have = self.limit().is_none() || inner.may_have(now);
            return i64::from(at <= now && !inner.probing && inner.reserved == 0 && may_have);
        }
        let ramp = inner.ramp.map_or(i64::MAX, |most| count(most.saturating_sub(inner.reserved)));
        if self.limit().is_none() {
            return ramp;
        }
        let batch = match self.account.of(channel).map(|c| c.batch) {
            Some(Batch::Any(most)) => count(most),
            _ => 1,
        };
        let in_hand = i64::from(inner.in_hand(now));
        // Where nothing is known to wait nothing is taken ahead: one may be looked for all the same, and no second one
        // before that has what it needs.
        let may_ask = in_hand == 0 && inner.waiting == 0 && (inner.free > 0 || inner.may_ask(now));
        ramp.min(in_hand.saturating_mul(batch).max(i64::from(may_ask)))
    }

    /// When it is worth looking again.
    pub fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.is_plain() {
            return None;
        }
        let inner = self.inner();
        if inner.state.paused_at.is_some() {
            return None;
        }
        // A probe is a request like any other.
        let ask_at = self.limit().filter(|_| inner.in_hand(now) == 0).map(|_| inner.ask_at);
        inner.state.probe_at(now).max(ask_at)
    }

    /// Whether requests are to be taken ahead: none is in hand, some may be had, and nothing else stands in its way.
    pub fn is_short(&self, now: DateTime<Utc>) -> bool {
        let inner = self.inner();
        let open = inner.state.paused_at.is_none() && inner.state.breaker == Breaker::Closed;
        open && inner.in_hand(now) == 0 && inner.may_ask(now)
    }

    /// Whether its limit is worth asking.
    pub fn may_ask(&self, now: DateTime<Utc>) -> bool {
        self.inner().may_ask(now)
    }

    /// A request of those that were taken, if one is left: until when it may be made.
    pub fn draw(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.inner().draw(now)
    }

    /// Gives back what lapses before `now`; whether anything is to be reported.
    pub fn lapse(&self, now: DateTime<Utc>) -> bool {
        let mut inner = self.inner();
        inner.lapse(now);
        !inner.reports.is_empty()
    }

    /// What became of the requests that were taken, each once.
    pub fn take_reports(&self, now: DateTime<Utc>) -> Vec<Report> {
        let mut inner = self.inner();
        inner.lapse(now);
        std::mem::take(&mut inner.reports)
    }

    pub fn put_back_reports(&self, reports: impl Iterator<Item = Report>) {
        self.inner().reports.extend(reports);
    }

    /// Of `wanted` requests, so many were taken.
    pub fn leased(&self, taken: Taken, wanted: u32, now: DateTime<Utc>) {
        self.inner().leased(taken, wanted, now);
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Inner {
    fn may_be_asked(&self, now: DateTime<Utc>) -> Result<(), Outcome> {
        if self.state.paused_at.is_some() {
            return Err(Outcome::deferred(now + PAUSED_FOR, "provider_paused"));
        }
        match self.state.probe_at(now) {
            // Another's probe, which may be answered at any moment.
            Some(at) if at > now && self.state.breaker == Breaker::HalfOpen => {
                Err(Outcome::deferred(at.min(now + SOON), "breaker_open"))
            }
            Some(at) if at > now => Err(Outcome::deferred(at, "breaker_open")),
            _ => Ok(()),
        }
    }

    fn limited(&self) -> Outcome {
        Outcome::deferred(self.ask_at, "limited")
    }

    fn in_hand(&self, now: DateTime<Utc>) -> u32 {
        self.hand.iter().filter(|(until, _)| *until >= now).map(|(_, n)| n).sum()
    }

    /// What lapsed is given back.
    fn lapse(&mut self, now: DateTime<Utc>) {
        let (good, over): (Vec<_>, Vec<_>) = self.hand.drain(..).partition(|(until, n)| *until >= now && *n > 0);
        self.hand = good;
        for (until, n) in over {
            self.reports.extend((0..n).map(|_| Report { until, made_at: None }));
        }
    }

    /// One that was taken, if one is left.
    fn draw(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.lapse(now);
        let (until, n) = self.hand.iter_mut().min_by_key(|(until, _)| *until)?;
        *n -= 1;
        Some(*until)
    }

    fn put_back(&mut self, until: DateTime<Utc>) {
        self.hand.push((until, 1));
    }

    /// Whether some may be had, now or when asked for.
    fn may_have(&self, now: DateTime<Utc>) -> bool {
        self.in_hand(now) > 0 || self.may_ask(now)
    }

    /// Worth asking; also when the clock was set back since it was asked last.
    fn may_ask(&self, now: DateTime<Utc>) -> bool {
        self.ask_at <= now || now < self.asked_at
    }

    fn leased(&mut self, taken: Taken, wanted: u32, now: DateTime<Utc>) {
        if taken.granted > 0 {
            self.hand.push((taken.until, taken.granted));
        }
        self.free = taken.free;
        self.asked_at = now;
        let soon = now + TimeDelta::seconds(1);
        let next = if taken.outstanding { taken.next.min(soon) } else { taken.next };
        self.ask_at = match wanted {
            0 => self.ask_at.min(next),
            _ if taken.granted < wanted => next,
            _ => now,
        };
    }
}
