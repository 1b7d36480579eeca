//! State of one provider in this process: its breaker, the requests that were leased from its rate limit, and the
//! deliveries that are routed to it. All processes share breakers and limits in the database; this copy spares a call
//! the round trip. A provider without limit and trouble costs the read of one flag.
//!
//! A *grant* is the permission to make one request, leased from the provider's rate limit; it is valid until a time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};

use super::lock::lock;
use crate::model::breaker::{BreakerState, OutcomeWindow, SharedProviderState, next_concurrency};
use crate::model::capability::Batch;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::limit::{PermitReport, RateLimit, RateLimitGrant};
use crate::model::pace::LimitScope;
use crate::provider::Account;

/// State of one provider account in this process.
pub struct ProviderState {
    /// The provider account.
    pub account: Arc<Account>,
    /// It has no rate limit, its breaker is closed and not recovering, and it is not paused.
    unrestricted: AtomicBool,
    /// Good answers within one second: unix time in the high bits, their count in the low `GOOD_BITS`.
    good_answers: AtomicU64,
    inner: Mutex<Inner>,
    /// Held by the task that leases from its rate limit, one at a time.
    pub lease_turn: tokio::sync::Mutex<()>,
}

/// Locked briefly, never across an await.
#[derive(Default)]
struct Inner {
    state: SharedProviderState,
    /// Leased grants: valid until when, and how many.
    grants: Vec<(DateTime<Utc>, u32)>,
    /// Used and expired grants that were not reported to the database yet.
    reports: Vec<PermitReport>,
    /// Requests that the limit had free at the last lease, beyond those leased.
    free: u32,
    /// A lease before this time would get nothing.
    lease_again_at: DateTime<Utc>,
    leased_at: DateTime<Utc>,
    /// Deliveries routed to the provider whose reservation is held.
    reserved: usize,
    /// Reservations without a grant.
    lacking_grant: usize,
    /// A probe by this process is in flight.
    probing: bool,
    /// A task of this process is writing that the breaker opens.
    opening: bool,
    /// Concurrency allowed while the provider recovers.
    ramp: Option<usize>,
    window: OutcomeWindow,
}

const GOOD_BITS: u32 = 24;
const GOOD_MASK: u64 = (1 << GOOD_BITS) - 1;

/// How long a delivery is deferred while its provider is paused: the end of the pause is unknown.
const PAUSE_RECHECK: TimeDelta = TimeDelta::seconds(30);
/// How long a delivery is deferred while another probe, or the first calls of a recovery, are in flight.
pub const PROBE_RECHECK: TimeDelta = TimeDelta::seconds(1);

/// A delivery's reservation at a provider that has a limit or is in trouble. Dropping it frees the place and puts its
/// unused grant back.
pub struct Reservation {
    provider: Arc<ProviderState>,
    /// Until when its grant is valid.
    grant: Option<DateTime<Utc>>,
    /// It is counted in `Inner::lacking_grant`.
    lacks_grant: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut inner = self.provider.inner();
        inner.reserved = inner.reserved.saturating_sub(1);
        inner.lacking_grant = inner.lacking_grant.saturating_sub(usize::from(self.lacks_grant));
        if let Some(until) = self.grant.take() {
            inner.put_back(until);
        }
    }
}

impl Reservation {
    /// Returns whether it still needs a grant. An expired grant is put back, so that it is reported as unused.
    pub fn needs_grant(&mut self, now: DateTime<Utc>) -> bool {
        if self.provider.limit().is_none() || self.grant.is_some_and(|until| until >= now) {
            return false;
        }
        if let Some(lapsed) = self.grant.take() {
            self.provider.inner().put_back(lapsed);
        }
        true
    }

    /// Gives it a grant that is valid until `until`.
    pub fn grant(&mut self, until: DateTime<Utc>) {
        self.grant = Some(until);
    }

    /// Uses its grant for a request that is made at `now`.
    ///
    /// # Errors
    /// The outcome to settle instead: the grant has expired. It is put back when the reservation is dropped.
    pub fn begin(&mut self, now: DateTime<Utc>) -> Result<(), Outcome> {
        let mut inner = self.provider.inner();
        match self.grant {
            Some(until) if until < now => return Err(inner.limited_outcome()),
            Some(until) => inner.reports.push(PermitReport { valid_until: until, made_at: Some(now) }),
            None => (),
        }
        self.grant = None;
        inner.lacking_grant = inner.lacking_grant.saturating_sub(usize::from(std::mem::take(&mut self.lacks_grant)));
        Ok(())
    }
}

impl ProviderState {
    /// Makes the state of an account about which nothing is known yet.
    pub fn new(account: Arc<Account>) -> ProviderState {
        ProviderState {
            unrestricted: AtomicBool::new(account.terms.limit.is_none()),
            account,
            good_answers: AtomicU64::new(0),
            inner: Mutex::default(),
            lease_turn: tokio::sync::Mutex::default(),
        }
    }

    /// Returns whether it has no limit, no trouble and no pause, so that no reservation is needed.
    pub fn is_unrestricted(&self) -> bool {
        self.unrestricted.load(Ordering::Relaxed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Returns its rate limit from the settings.
    pub fn limit(&self) -> Option<&RateLimit> {
        self.account.terms.limit.as_ref()
    }

    /// Returns its breaker and pause, as last read or written by this process.
    pub fn state(&self) -> SharedProviderState {
        self.inner().state.clone()
    }

    /// Returns whether its answers count for its breaker. Not for webhooks: the endpoints belong to partners, and their
    /// failures say nothing about a provider. Not where each destination is a server of its own: those have paces
    /// (`hub::paces`).
    pub fn is_judged(&self) -> bool {
        let of_destinations = self.account.provider.limited_by() == LimitScope::Destination;
        !of_destinations && self.account.capabilities.iter().any(|c| !c.channel.calls_partner_servers())
    }

    fn update_unrestricted(&self, inner: &Inner) {
        let state = &inner.state;
        let troubled = state.paused_at.is_some() || state.breaker != BreakerState::Closed || inner.ramp.is_some();
        self.unrestricted.store(self.limit().is_none() && !troubled, Ordering::Relaxed);
    }

    /// Takes over a state that was read or written, if it is newer than the known one. Returns whether it was.
    pub fn adopt_if_newer(&self, state: SharedProviderState) -> bool {
        if state.changed_at <= self.inner().state.changed_at {
            return false;
        }
        self.replace(state);
        true
    }

    /// Takes over the state in the database even if it is older than the known one: the database may have been restored
    /// from a backup. A breaker that closes begins the ramp of a recovery.
    pub fn replace(&self, state: SharedProviderState) {
        let mut inner = self.inner();
        if state.breaker != BreakerState::Closed {
            inner.ramp = None;
        } else if inner.state.breaker != BreakerState::Closed {
            inner.ramp = Some(1);
            inner.window.clear();
        }
        inner.state = state;
        self.update_unrestricted(&inner);
    }

    /// Checks whether a further delivery may be routed to it at `now`.
    ///
    /// # Errors
    /// The outcome to settle instead: deferred, with reason and time (paused, breaker open, limit used up).
    pub fn check_admission(&self, now: DateTime<Utc>) -> Result<(), Outcome> {
        if self.is_unrestricted() {
            return Ok(());
        }
        let inner = self.inner();
        inner.check_callable(now)?;
        let probed = inner.state.breaker != BreakerState::Closed && (inner.probing || inner.reserved > 0);
        if probed || inner.ramp.is_some_and(|most| inner.reserved >= most) {
            return Err(Outcome::deferred(now + PROBE_RECHECK, "breaker_open"));
        }
        if self.limit().is_some() && !inner.may_get_grant(now) {
            return Err(inner.limited_outcome());
        }
        Ok(())
    }

    /// Checks that it is neither paused nor waiting for its breaker's next probe.
    ///
    /// # Errors
    /// The outcome to settle instead: deferred, with reason and time.
    pub fn check_callable(&self, now: DateTime<Utc>) -> Result<(), Outcome> {
        self.inner().check_callable(now)
    }

    /// Reserves a place for a delivery. With `now`, one of the leased grants goes with it if one is left; with None the
    /// reservation has no grant.
    pub fn reserve(self: &Arc<ProviderState>, now: Option<DateTime<Utc>>) -> Reservation {
        let has_limit = self.limit().is_some();
        let mut inner = self.inner();
        inner.reserved += 1;
        let grant = now.filter(|_| has_limit).and_then(|now| inner.take_grant(now));
        let lacks_grant = has_limit && grant.is_none();
        inner.lacking_grant += usize::from(lacks_grant);
        drop(inner);
        Reservation { provider: self.clone(), grant, lacks_grant }
    }

    /// The outcome to settle where its limit has nothing left: deferred until a lease may succeed.
    pub fn limited_outcome(&self) -> Outcome {
        self.inner().limited_outcome()
    }

    /// Marks that a probe by this process is in flight.
    pub fn begin_probe(&self) {
        self.inner().probing = true;
    }

    /// Marks that no probe by this process is in flight any more.
    pub fn end_probe(&self) {
        self.inner().probing = false;
    }

    /// Counts a good answer at `now`; during a recovery it raises the allowed concurrency.
    pub fn record_success(&self, now: DateTime<Utc>) {
        let second = u64::try_from(now.timestamp()).unwrap_or(0);
        let seen = self.good_answers.load(Ordering::Relaxed);
        let same = seen >> GOOD_BITS == second && seen & GOOD_MASK < GOOD_MASK;
        let counted =
            || self.good_answers.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !(same && counted()) {
            let mut inner = self.inner();
            self.flush_good_answers(&mut inner);
            // Another second is set only under the lock, which this holds.
            self.good_answers.store(second << GOOD_BITS | 1, Ordering::Relaxed);
        }
        if !self.is_unrestricted() {
            let mut inner = self.inner();
            inner.ramp = inner.ramp.and_then(next_concurrency);
            self.update_unrestricted(&inner);
        }
    }

    fn flush_good_answers(&self, inner: &mut Inner) {
        let seen = self.good_answers.swap(0, Ordering::Relaxed);
        let good = u32::try_from(seen & GOOD_MASK).unwrap_or(0);
        if good > 0 {
            inner.window.record(i64::try_from(seen >> GOOD_BITS).unwrap_or(0), good, 0);
        }
    }

    /// Counts a bad answer at `now`. Returns the known state if the breaker is to open and the caller is the one to
    /// write that; the caller then calls `end_opening`. `at_once`: this one answer suffices.
    pub fn record_failure(&self, now: DateTime<Utc>, at_once: bool) -> Option<SharedProviderState> {
        let mut inner = self.inner();
        self.flush_good_answers(&mut inner);
        inner.window.record(now.timestamp(), 0, 1);
        let enough = at_once || inner.window.should_open(now.timestamp(), inner.ramp.is_some());
        let ours = enough && inner.state.breaker == BreakerState::Closed && !inner.opening;
        inner.opening |= ours;
        ours.then(|| inner.state.clone())
    }

    /// Marks that the task that writes that the breaker opens has ended.
    pub fn end_opening(&self) {
        self.inner().opening = false;
    }

    /// Returns how many deliveries of a channel may be claimed for it at `now`; `i64::MAX` if it is unrestricted.
    pub fn room(&self, channel: Channel, now: DateTime<Utc>) -> i64 {
        if self.is_unrestricted() {
            return i64::MAX;
        }
        let inner = self.inner();
        if inner.state.paused_at.is_some() {
            return 0;
        }
        if let Some(at) = inner.state.next_probe_at(now) {
            let may_get_grant = self.limit().is_none() || inner.may_get_grant(now);
            return i64::from(at <= now && !inner.probing && inner.reserved == 0 && may_get_grant);
        }
        let ramp = inner.ramp.map_or(i64::MAX, |most| count(most.saturating_sub(inner.reserved)));
        if self.limit().is_none() {
            return ramp;
        }
        let batch = match self.account.capability(channel).map(|c| c.batch) {
            Some(Batch::Any(most)) => count(most),
            _ => 1,
        };
        let grants_left = i64::from(inner.grants_left(now));
        // Nothing is leased ahead for an empty queue. One delivery may be claimed all the same, and no second one
        // before the first has its grant.
        let may_lease = grants_left == 0 && inner.lacking_grant == 0 && (inner.free > 0 || inner.may_lease(now));
        ramp.min(grants_left.saturating_mul(batch).max(i64::from(may_lease)))
    }

    /// Returns when a delivery that cannot go there now may be tried again; None if unrestricted or paused.
    pub fn retry_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.is_unrestricted() {
            return None;
        }
        let inner = self.inner();
        if inner.state.paused_at.is_some() {
            return None;
        }
        // A probe needs a grant like any other request.
        let lease_again_at = self.limit().filter(|_| inner.grants_left(now) == 0).map(|_| inner.lease_again_at);
        inner.state.next_probe_at(now).max(lease_again_at)
    }

    /// Returns whether grants should be leased ahead: none is left, a lease may succeed, and the provider is neither
    /// paused nor open.
    pub fn needs_grants(&self, now: DateTime<Utc>) -> bool {
        let inner = self.inner();
        let open = inner.state.paused_at.is_none() && inner.state.breaker == BreakerState::Closed;
        open && inner.grants_left(now) == 0 && inner.may_lease(now)
    }

    /// Returns whether a lease at `now` may get something.
    pub fn may_lease(&self, now: DateTime<Utc>) -> bool {
        self.inner().may_lease(now)
    }

    /// Takes one leased grant, the one that expires first; returns until when it is valid.
    pub fn take_grant(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.inner().take_grant(now)
    }

    /// Turns grants that expired before `now` into reports; returns whether there is anything to report.
    pub fn expire_grants(&self, now: DateTime<Utc>) -> bool {
        let mut inner = self.inner();
        inner.expire_grants(now);
        !inner.reports.is_empty()
    }

    /// Takes the reports of used and expired grants; each is returned once.
    pub fn take_reports(&self, now: DateTime<Utc>) -> Vec<PermitReport> {
        let mut inner = self.inner();
        inner.expire_grants(now);
        std::mem::take(&mut inner.reports)
    }

    /// Puts back reports that could not be written.
    pub fn put_back_reports(&self, reports: impl Iterator<Item = PermitReport>) {
        self.inner().reports.extend(reports);
    }

    /// Records a lease: `taken` is what the database gave for `wanted` requests at `now`.
    pub fn record_lease(&self, taken: RateLimitGrant, wanted: u32, now: DateTime<Utc>) {
        self.inner().record_lease(taken, wanted, now);
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Inner {
    fn check_callable(&self, now: DateTime<Utc>) -> Result<(), Outcome> {
        if self.state.paused_at.is_some() {
            return Err(Outcome::deferred(now + PAUSE_RECHECK, "provider_paused"));
        }
        match self.state.next_probe_at(now) {
            // Another process's probe, which may be answered at any moment.
            Some(at) if at > now && self.state.breaker == BreakerState::HalfOpen => {
                Err(Outcome::deferred(at.min(now + PROBE_RECHECK), "breaker_open"))
            }
            Some(at) if at > now => Err(Outcome::deferred(at, "breaker_open")),
            _ => Ok(()),
        }
    }

    fn limited_outcome(&self) -> Outcome {
        Outcome::deferred(self.lease_again_at, "limited")
    }

    fn grants_left(&self, now: DateTime<Utc>) -> u32 {
        self.grants.iter().filter(|(until, _)| *until >= now).map(|(_, n)| n).sum()
    }

    /// Expired grants become reports of unused requests.
    fn expire_grants(&mut self, now: DateTime<Utc>) {
        let (good, over): (Vec<_>, Vec<_>) = self.grants.drain(..).partition(|(until, n)| *until >= now && *n > 0);
        self.grants = good;
        for (until, n) in over {
            self.reports.extend((0..n).map(|_| PermitReport { valid_until: until, made_at: None }));
        }
    }

    /// Takes the grant that expires first.
    fn take_grant(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.expire_grants(now);
        let (until, n) = self.grants.iter_mut().min_by_key(|(until, _)| *until)?;
        *n -= 1;
        Some(*until)
    }

    fn put_back(&mut self, until: DateTime<Utc>) {
        self.grants.push((until, 1));
    }

    /// Whether a grant is left, or a lease may get one.
    fn may_get_grant(&self, now: DateTime<Utc>) -> bool {
        self.grants_left(now) > 0 || self.may_lease(now)
    }

    /// Whether a lease may get something; also true if the clock was set back since the last lease.
    fn may_lease(&self, now: DateTime<Utc>) -> bool {
        self.lease_again_at <= now || now < self.leased_at
    }

    fn record_lease(&mut self, taken: RateLimitGrant, wanted: u32, now: DateTime<Utc>) {
        if taken.granted > 0 {
            self.grants.push((taken.valid_until, taken.granted));
        }
        self.free = taken.free;
        self.leased_at = now;
        let soon = now + TimeDelta::seconds(1);
        let next = if taken.has_outstanding { taken.next_free_at.min(soon) } else { taken.next_free_at };
        self.lease_again_at = match wanted {
            0 => self.lease_again_at.min(next),
            _ if taken.granted < wanted => next,
            _ => now,
        };
    }
}
