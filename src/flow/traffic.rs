//! Traffic: what this process may ask of which provider now. Breakers and limits are all processes' own, in the database; a
//! process takes from a limit ahead and remembers the breakers, so that no call waits for the database. A provider without
//! limit and trouble costs a look at one flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use super::delivery::pace::{self, Paces};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::limits;
use crate::model::breaker::{Breaker, State, Window, ramped};
use crate::model::capability::Batch;
use crate::model::channel::Channel;
use crate::model::delivery::PARKED;
use crate::model::limit::{Booked, RateLimit, Report, Taken};
use crate::model::pace::LimitedBy;
use crate::model::role::Operating;
use crate::provider::{Account, Providers};
use crate::store;
use crate::store::audit::Deed;
use crate::store::provider::Hold;

/// All providers of this process.
pub struct Traffic {
    by_name: HashMap<String, Arc<Way>>,
    by_channel: HashMap<Channel, Vec<Arc<Way>>>,
    /// Whose turn it is, where several serve a channel.
    turns: Mutex<HashMap<Channel, Vec<i64>>>,
    /// Destinations that answered "too fast".
    pub paces: Paces,
    /// What claims under way may bring.
    expected: Mutex<HashMap<Channel, i64>>,
}

/// The way to one provider.
pub struct Way {
    pub account: Arc<Account>,
    /// Nothing stands in it: no limit, no trouble, no pause.
    plain: AtomicBool,
    /// Good answers of one second: the second above, how many below.
    good: AtomicU64,
    pub in_flight: AtomicI64,
    inner: Mutex<Inner>,
    asking: tokio::sync::Mutex<()>,
}

/// Held briefly, never over an await.
#[derive(Default)]
pub struct Inner {
    pub state: State,
    /// Requests that were taken: until when they may be made, and how many.
    hand: Vec<(DateTime<Utc>, u32)>,
    /// What became of those that were taken.
    reports: Vec<Report>,
    /// Free beyond that, when last asked.
    free: u32,
    /// Not worth asking before.
    pub ask_at: DateTime<Utc>,
    asked_at: DateTime<Utc>,
    /// Deliveries that are to go this way.
    pub seats: usize,
    /// Of these, for how many no request was taken yet.
    pub waiting: usize,
    /// A probe of ours is under way.
    pub probing: bool,
    /// Somebody here is writing that it opens.
    pub opening: bool,
    /// Calls at once, while it recovers.
    pub ramp: Option<usize>,
    pub window: Window,
}

const GOOD_BITS: u32 = 24;
const GOOD_MASK: u64 = (1 << GOOD_BITS) - 1;

impl Way {
    fn new(account: Arc<Account>) -> Way {
        let plain = AtomicBool::new(account.terms.limit.is_none());
        let (good, in_flight) = (AtomicU64::new(0), AtomicI64::new(0));
        Way { account, plain, good, in_flight, inner: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    pub fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn limit(&self) -> Option<&RateLimit> {
        self.account.terms.limit.as_ref()
    }

    /// Whether answers open its breaker. Partners' endpoints are strangers: what they answer says nothing of a provider. A
    /// chat's destinations may be servers of their own, each with its own trouble (`pace`).
    pub fn is_judged(&self) -> bool {
        let of_destinations = self.account.provider.limited_by() == LimitedBy::Destination;
        !of_destinations && self.account.capabilities.iter().any(|c| c.channel != Channel::Webhook)
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
    fn take_over(&self, state: State) {
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

    /// It answered badly; whether that is enough, and it is ours to say so.
    pub fn went_badly(&self, now: DateTime<Utc>, at_once: bool) -> bool {
        let mut inner = self.inner();
        self.count_good(&mut inner);
        inner.window.add(now.timestamp(), 0, 1);
        let enough = at_once || inner.window.opens(now.timestamp(), inner.ramp.is_some());
        let ours = enough && inner.state.breaker == Breaker::Closed && !inner.opening;
        inner.opening |= ours;
        ours
    }

    /// How many deliveries of a channel may be claimed for it.
    fn room(&self, channel: Channel, now: DateTime<Utc>) -> i64 {
        if self.is_plain() {
            return i64::MAX;
        }
        let inner = self.inner();
        if inner.state.paused_at.is_some() {
            return 0;
        }
        if let Some(at) = inner.state.probe_at(now) {
            let may_have = self.limit().is_none() || inner.may_have(now);
            return i64::from(at <= now && !inner.probing && inner.seats == 0 && may_have);
        }
        let ramp = inner.ramp.map_or(i64::MAX, |most| count(most.saturating_sub(inner.seats)));
        if self.limit().is_none() {
            return ramp;
        }
        let batch = match self.account.of(channel).map(|c| c.batch) {
            Some(Batch::Any(most)) => count(most),
            _ => 1,
        };
        let in_hand = i64::from(inner.in_hand(now));
        // Where nothing is known to wait nothing is taken ahead: one may be looked for all the same, and no second one before
        // that has what it needs.
        let may_ask = in_hand == 0 && inner.waiting == 0 && (inner.free > 0 || inner.may_ask(now));
        ramp.min(in_hand.saturating_mul(batch).max(i64::from(may_ask)))
    }

    /// When it is worth looking again.
    fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
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
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Inner {
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
    pub fn draw(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.lapse(now);
        let (until, n) = self.hand.iter_mut().min_by_key(|(until, _)| *until)?;
        *n -= 1;
        Some(*until)
    }

    pub fn put_back(&mut self, until: DateTime<Utc>) {
        self.hand.push((until, 1));
    }

    pub fn made(&mut self, until: DateTime<Utc>, now: DateTime<Utc>) {
        self.reports.push(Report { until, made_at: Some(now) });
    }

    /// Whether some may be had, now or when asked for.
    pub fn may_have(&self, now: DateTime<Utc>) -> bool {
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

impl Traffic {
    pub fn new(providers: &Providers) -> Traffic {
        let mut traffic = Traffic {
            by_name: HashMap::new(),
            by_channel: HashMap::new(),
            turns: Mutex::default(),
            paces: Paces::default(),
            expected: Mutex::default(),
        };
        for account in providers.iter() {
            let way = Arc::new(Way::new(account.clone()));
            traffic.by_name.insert(account.name().to_owned(), way);
        }
        for channel in providers.channels() {
            let ways = providers.of(channel).iter().filter_map(|a| traffic.by_name.get(a.name()).cloned());
            let ways = ways.collect();
            traffic.by_channel.insert(channel, ways);
        }
        traffic
    }

    pub fn of(&self, channel: Channel) -> &[Arc<Way>] {
        self.by_channel.get(&channel).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Way>> {
        self.by_name.get(name)
    }

    /// Who is next among these (index, weight): each as often as its weight says, and evenly in between.
    pub fn turn(&self, channel: Channel, among: &[(usize, u32)]) -> Option<usize> {
        if let [(only, _)] = among {
            return Some(*only);
        }
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let credit = turns.entry(channel).or_insert_with(|| vec![0; self.of(channel).len()]);
        let weight = |weight: u32| i64::from(weight.max(1));
        among.iter().for_each(|(n, w)| credit[*n] += weight(*w));
        let next = among.iter().map(|(n, _)| *n).max_by_key(|n| (credit[*n], std::cmp::Reverse(*n)))?;
        credit[next] -= among.iter().map(|(_, w)| weight(*w)).sum::<i64>();
        Some(next)
    }

    /// How many deliveries of a channel may be claimed now.
    pub fn room(&self, channel: Channel, now: DateTime<Utc>) -> i64 {
        let ways = self.of(channel);
        if ways.iter().any(|way| way.is_plain()) {
            return i64::MAX;
        }
        let room = ways.iter().fold(0i64, |room, way| room.saturating_add(way.room(channel, now)));
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        room.saturating_sub(expected.get(&channel).copied().unwrap_or(0)).max(0)
    }

    /// A claim is under way that may bring so many; until it has.
    pub fn expect(self: &Arc<Traffic>, takes: impl Iterator<Item = (Channel, i64)>) -> Expected {
        let bounded = |channel: &Channel| !self.of(*channel).iter().any(|way| way.is_plain());
        let takes: Vec<(Channel, i64)> = takes.filter(|(channel, _)| bounded(channel)).collect();
        if !takes.is_empty() {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            takes.iter().for_each(|(channel, n)| *expected.entry(*channel).or_default() += n);
        }
        Expected { traffic: self.clone(), takes }
    }

    /// When the next provider may be asked that may not be now.
    pub fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.by_name.values().filter_map(|way| way.due(now)).filter(|at| *at > now).min()
    }
}

/// Room that a claim under way may need.
pub struct Expected {
    traffic: Arc<Traffic>,
    takes: Vec<(Channel, i64)>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        if self.takes.is_empty() {
            return;
        }
        let mut expected = self.traffic.expected.lock().unwrap_or_else(PoisonError::into_inner);
        self.takes.iter().for_each(|(channel, n)| *expected.entry(*channel).or_default() -= n);
    }
}

/// Takes from the limits of a channel's providers what is about to be claimed, if it is not in hand.
pub async fn prepare(hub: &Hub, channel: Channel, wanted: i64) -> Result<()> {
    for way in hub.traffic.of(channel) {
        let Some(limit) = way.limit() else { continue };
        let now = hub.clock.now();
        let short = {
            let inner = way.inner();
            let open = inner.state.paused_at.is_none() && inner.state.breaker == Breaker::Closed;
            open && inner.in_hand(now) == 0 && inner.may_ask(now)
        };
        // Who asks already asks for all.
        let Some(_asking) = way.asking.try_lock().ok().filter(|_| short) else { continue };
        lease(hub, way, u32::try_from(wanted).unwrap_or(u32::MAX).min(limit.chunk())).await?;
    }
    Ok(())
}

/// One more request for a delivery that is held already.
pub async fn lease_one(hub: &Hub, way: &Way) -> Result<Option<DateTime<Utc>>> {
    let _asking = way.asking.lock().await;
    let now = hub.clock.now();
    if let Some(until) = way.inner().draw(now) {
        return Ok(Some(until));
    }
    if way.inner().may_ask(now) {
        lease(hub, way, 1).await?;
    }
    // It may have taken so long that what was taken lapsed.
    Ok(way.inner().draw(hub.clock.now()))
}

/// Takes from a provider's limit, and tells what became of what was taken before.
async fn lease(hub: &Hub, way: &Way, wanted: u32) -> Result<()> {
    let Some(limit) = way.limit() else { return Ok(()) };
    let reports = {
        let mut inner = way.inner();
        inner.lapse(hub.clock.now());
        std::mem::take(&mut inner.reports)
    };
    match book(hub, way.account.name(), limit, wanted, &reports).await {
        Ok(taken) => {
            way.inner().leased(taken, wanted, hub.clock.now());
            hub.metrics.limit_free.with_label_values(&[way.account.name()]).set(i64::from(taken.free));
            Ok(())
        }
        Err(e) => {
            // Perhaps it was written: told twice, what was not made would be given to others twice.
            way.inner().reports.extend(reports.into_iter().filter(|report| report.made_at.is_some()));
            Err(e)
        }
    }
}

async fn book(hub: &Hub, provider: &str, limit: &RateLimit, wanted: u32, reports: &[Report]) -> Result<Taken> {
    let mut tx = hub.store.begin_engine().await?;
    let mut booked = store::provider::lock_limit(&mut tx, provider, hub.clock.now()).await?;
    // The connection and the lock may have been waited for: what is taken may be made from now on, not from then.
    let now = hub.clock.now();
    booked.settle(limit, reports);
    let taken = booked.take(limit, wanted, now);
    store::provider::put_limit(&mut *tx, provider, &booked, now).await?;
    if wanted > 0 && taken.granted == 0 {
        let detail = Some(format!("{} in {} s, {}", limit.count, limit.per.as_secs(), limit.strategy));
        let hold = Hold {
            provider: provider.to_owned(),
            reason: "limited".into(),
            began_at: now,
            ended_at: taken.next,
            detail,
        };
        store::provider::hold(&mut *tx, &hold, now - limits::HOLDS_MERGE).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// Tells what became of all that was taken. `all`: nothing is kept in hand.
pub async fn give_back(hub: &Hub, all: bool) -> Result<()> {
    for way in hub.traffic.by_name.values() {
        if way.limit().is_none() {
            continue;
        }
        let _asking = way.asking.lock().await;
        let untold = {
            let mut inner = way.inner();
            inner.lapse(if all { DateTime::<Utc>::MAX_UTC } else { hub.clock.now() });
            !inner.reports.is_empty()
        };
        if untold {
            lease(hub, way, 0).await?;
        }
    }
    Ok(())
}

/// What all know of the providers.
pub async fn refresh(hub: &Hub) -> Result<()> {
    pace::refresh(hub).await?;
    let mut news = false;
    for (provider, state) in store::provider::states(hub.store.engine()).await? {
        if let Some(way) = hub.traffic.named(&provider) {
            news |= way.adopt(state);
        }
    }
    for (name, way) in &hub.traffic.by_name {
        let inner = way.inner();
        let level = match inner.state.breaker {
            Breaker::Closed => 0,
            Breaker::HalfOpen => 1,
            Breaker::Open => 2,
        };
        hub.metrics.breaker_state.with_label_values(&[name]).set(level);
        hub.metrics.provider_paused.with_label_values(&[name]).set(i64::from(inner.state.paused_at.is_some()));
    }
    if news {
        awaken(hub);
    }
    Ok(())
}

/// Lanes that were passed over may be looked at again.
fn awaken(hub: &Hub) {
    hub.wake.look_again();
}

/// Writes a state that follows on the one that was `seen`, unless another was faster. What is known then is what is written.
pub async fn write(hub: &Hub, way: &Way, seen: &State, next: State, now: DateTime<Utc>) -> Result<bool> {
    let name = way.account.name();
    let mut tx = hub.store.begin_engine().await?;
    if !store::provider::put_state(&mut *tx, name, &next, seen.changed_at).await? {
        tx.rollback().await?;
        read_again(hub, way).await?;
        return Ok(false);
    }
    let opens = next.breaker == Breaker::Open && seen.breaker != Breaker::Open;
    let closes = next.breaker == Breaker::Closed && seen.breaker != Breaker::Closed;
    if opens {
        let (reason, detail) = ("breaker".to_owned(), next.reason.clone());
        let hold = Hold { provider: name.to_owned(), reason, began_at: now, ended_at: PARKED, detail };
        store::provider::hold(&mut *tx, &hold, now - limits::HOLDS_MERGE).await?;
    } else if closes {
        store::provider::end_hold(&mut *tx, name, "breaker", now).await?;
    }
    tx.commit().await?;
    if opens {
        hub.metrics.breaker_openings.with_label_values(&[name, next.reason.as_deref().unwrap_or_default()]).inc();
        tracing::warn!(
            provider = name,
            reason = next.reason,
            until = next.open_until.map(tracing::field::display),
            "a provider's breaker opened"
        );
    } else if closes {
        tracing::info!(provider = name, "a provider's breaker closed: it works again");
    }
    way.adopt(next);
    awaken(hub);
    if (opens || closes)
        && let Err(e) = store::listen::tell_changed(&hub.store).await
    {
        tracing::debug!(error = %e, "other processes are not told at once: they look each second");
    }
    Ok(true)
}

/// What is written is what holds, whatever was known before.
async fn read_again(hub: &Hub, way: &Way) -> Result<()> {
    let states = store::provider::states(hub.store.engine()).await?;
    let mine = states.into_iter().find(|(provider, _)| provider == way.account.name());
    way.take_over(mine.map(|(_, state)| state).unwrap_or_default());
    awaken(hub);
    Ok(())
}

/// Pauses a provider, or lets it go on. What waits for it waits longer, and loses no attempt.
pub async fn pause(hub: &Hub, permit: Operating<'_>, provider: &str, pause: bool) -> Result<()> {
    let way = hub.traffic.named(provider).ok_or(Error::NotFound)?;
    let actor = permit.actor();
    for _ in 0..limits::STATE_ROUNDS {
        read_again(hub, way).await?;
        let (now, seen) = (hub.clock.now(), way.inner().state.clone());
        // Of one that nobody paused, but that is left alone for what it answered, resuming has it probed.
        let probed = !pause && seen.breaker == Breaker::Open && seen.probe_at(now).is_some_and(|at| at > now);
        if seen.paused_at.is_some() == pause && !probed {
            return Ok(());
        }
        let next = seen.paused(pause.then_some(actor.who.as_str()), now);
        let mut tx = hub.store.begin().await?;
        if !store::provider::put_state(&mut *tx, provider, &next, seen.changed_at).await? {
            tx.rollback().await?;
            continue;
        }
        if pause {
            let (reason, detail) = ("paused".to_owned(), None);
            let hold = Hold { provider: provider.to_owned(), reason, began_at: now, ended_at: PARKED, detail };
            store::provider::hold(&mut *tx, &hold, now - limits::HOLDS_MERGE).await?;
        } else {
            store::provider::end_hold(&mut *tx, provider, "paused", now).await?;
        }
        let action = if pause { "provider.pause" } else { "provider.resume" }.to_owned();
        let deed = Deed { action, object: Some(provider.to_owned()), ..Deed::default() };
        store::audit::insert(&mut *tx, hub.next_id(), now, actor, &deed).await?;
        tx.commit().await?;
        refresh(hub).await?;
        if let Err(e) = store::listen::tell_changed(&hub.store).await {
            tracing::debug!(error = %e, "other processes are not told at once: they look each second");
        }
        return Ok(());
    }
    Err(Error::Unavailable("the provider's state changes faster than it can be written: try again".into()))
}

/// How a provider stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Up,
    /// Its limit is used up at present.
    Limited,
    Open,
    HalfOpen,
    Paused,
}

impl Stand {
    pub fn as_str(self) -> &'static str {
        match self {
            Stand::Up => "UP",
            Stand::Limited => "LIMITED",
            Stand::Open => "OPEN",
            Stand::HalfOpen => "HALF_OPEN",
            Stand::Paused => "PAUSED",
        }
    }
}

pub const STANDS: [Stand; 5] = [Stand::Up, Stand::Limited, Stand::Open, Stand::HalfOpen, Stand::Paused];

/// A provider as operators see it.
pub struct Seen {
    pub account: Arc<Account>,
    pub stand: Stand,
    pub state: State,
    /// Of its limit: how many count now, and when one more is free.
    pub used: Option<(u32, DateTime<Utc>)>,
    /// Deliveries of its channels that workers hold.
    pub held: i64,
    /// Its destinations that fail again and again.
    pub failing: Vec<String>,
}

/// All providers of this hub's settings, as the books have them.
pub async fn seen(hub: &Hub) -> Result<Vec<Seen>> {
    let db = hub.store.api();
    let now = hub.clock.now();
    let mut states: HashMap<String, State> = store::provider::states(db).await?.into_iter().collect();
    let mut booked: HashMap<String, Booked> = store::provider::limits(db).await?.into_iter().collect();
    let mut failing: HashMap<String, Vec<String>> = HashMap::new();
    for ((provider, destination), pace) in store::pace::list(db, now).await? {
        if pace.failures > 0 {
            failing.entry(provider).or_default().push(destination);
        }
    }
    let held = store::provider::held(db, &store::partner::shards(db).await?).await?;
    let seen = |account: &Arc<Account>| {
        let name = account.name();
        let (state, booked) = (states.remove(name).unwrap_or_default(), booked.remove(name).unwrap_or_default());
        let used = account.terms.limit.map(|limit| booked.used(&limit, now));
        let stand = match (state.paused_at, state.breaker, used) {
            (Some(_), ..) => Stand::Paused,
            (None, Breaker::Open, _) => Stand::Open,
            (None, Breaker::HalfOpen, _) => Stand::HalfOpen,
            (None, Breaker::Closed, Some((_, free_at))) if free_at > now => Stand::Limited,
            (None, Breaker::Closed, _) => Stand::Up,
        };
        let mine = held.iter().filter(|(lane, _)| account.of(lane.channel()).is_some());
        let failing = failing.remove(name).unwrap_or_default();
        Seen { account: account.clone(), stand, state, used, held: mine.map(|(_, n)| n).sum(), failing }
    };
    Ok(hub.providers.iter().map(seen).collect())
}
