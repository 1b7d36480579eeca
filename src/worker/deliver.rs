//! The claiming loops: each looks where something is, calls what it claimed, and settles in batches. The next batch is claimed
//! while the present one is being sent; how much is held at once is bounded per channel, so that a provider that hangs
//! holds up its own channel only. Webhooks go to strangers' endpoints: their loops, settlers and connections are their own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::IntGauge;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::{Error, Result, Unavailable, UnavailableKind};
use crate::flow::delivery::call::{call, requests};
use crate::flow::delivery::claim::{Claim, claim};
use crate::flow::delivery::hold::hold;
use crate::flow::delivery::settle::settle;
use crate::flow::delivery::{breaker, limit, promote, reap, suspect};
use crate::hub::Hub;
use crate::hub::wake::Share;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::DeliveryKey;
use crate::model::lane::Lane;
use crate::model::watermark::{Look, LookResult, Place, Watermarks};
use crate::store::{self, delivery::Settle};

/// Until the process stops.
pub fn start(hub: &Hub, worker: Tsid) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        let lines = [false, true].map(|strangers| Line::new(&hub, strangers));
        let sides = lines.iter().flat_map(|line| [false, true].map(|overflow| (line, overflow)));
        let sides = sides.map(|(line, overflow)| {
            let mut loop_ = Loop::new(&hub, worker, line, Some(overflow));
            hub.shutdown.spawn(async move {
                while !loop_.hub.shutdown.is_stopping() {
                    loop_.turn(overflow).await;
                }
            })
        });
        for side in sides.collect::<Vec<_>>() {
            // One that panicked has said so itself.
            let _ended = side.await;
        }
        let leaving = store::worker::forget(hub.store.engine(), DateTime::UNIX_EPOCH, Some(worker)).await;
        if let Err(e) = leaving {
            tracing::debug!(error = %e, "the worker could not sign off; others forget it in time");
        }
        // What was claimed and is released now puts back what was taken for it: then none is left.
        for line in lines {
            while !line.slots.all_free() {
                line.slots.freed[0].notified().await;
            }
        }
        if let Err(e) = limit::give_back(&hub, true).await {
            tracing::debug!(error = %e, "what was taken of limits is not given back: it lapses");
        }
    });
}

/// Delivers what is due now, and returns when nothing is left to claim and all that was claimed is settled.
pub async fn once(hub: &Hub) -> Result<u64> {
    let worker = hub.next_id();
    let mut loops = [false, true].map(|strangers| Loop::new(hub, worker, &Line::new(hub, strangers), None));
    let shards = store::partner::shards(hub.store.engine()).await?;
    let mut reaper = reap::Reaper::default();
    let mut promoter = promote::Promoter::default();
    let mut relay = crate::flow::relay::Relay::default();
    reap::reap(hub, &mut reaper, &shards).await?;
    loop {
        match crate::flow::relay::relay(hub, &mut relay).await {
            Ok(true) => (),
            Ok(false) => break,
            Err(e) => {
                tracing::warn!(error = %e, "what was enqueued in SQL waits for the next pass");
                break;
            }
        }
    }
    while promote::promote(hub, &mut promoter, &shards).await? > 0 {}
    let mut alone = 0;
    while one_alone(hub, worker, &shards, &hub.providers.channels()).await? {
        alone += 1;
    }
    while crate::flow::channel::restart_stalled(hub, &mut Default::default()).await? {}
    breaker::refresh(hub).await?;
    while !hub.shutdown.is_stopping() {
        // First where something is known to be, which at the start is everywhere; then once more everywhere. A look while
        // a channel has no room says nothing about that channel.
        let all_free = loops.iter().all(|l| l.slots.all_free());
        // What waits for a provider that may not be asked waits for another pass.
        let idle = |loop_: &Loop| !loop_.marks.any_active_of(&loop_.room(i64::MAX));
        let everywhere = loops.iter().all(idle);
        let mut found = 0;
        for loop_ in &mut loops {
            found += loop_.look(everywhere).await?;
        }
        if found > 0 {
            continue;
        }
        if !all_free {
            let [one, other] = &loops;
            tokio::select! {
                () = one.slots.freed[0].notified() => (),
                () = other.slots.freed[0].notified() => (),
            }
        } else if everywhere && loops.iter().all(idle) {
            // The last to end may have made a message complete, which is to be told.
            if !crate::flow::publish::complete(hub).await? {
                break;
            }
        }
    }
    limit::give_back(hub, true).await?;
    crate::flow::channel::note_answers(hub).await?;
    Ok(loops.iter().map(|l| l.claimed).sum::<u64>() + alone)
}

/// Delivers one of those of these channels that a worker was lost with; false: none is due.
pub async fn one_alone(hub: &Hub, worker: Tsid, shards: &[i16], channels: &[Channel]) -> Result<bool> {
    if hub.shutdown.is_stopping() {
        return Ok(false);
    }
    let Some(settles) = suspect::call_next(hub, worker, shards, channels).await? else { return Ok(false) };
    let keys: Vec<(i16, Tsid)> = settles.iter().map(|s| (s.key.shard, s.key.message_id)).collect();
    settle_surely(hub, settles).await;
    for key in keys {
        suspect::forget(hub, key).await?;
    }
    Ok(true)
}

/// What the claiming loops of channels that call strangers share, or those of all other channels: how much may be held,
/// and the tasks that write outcomes.
struct Line {
    strangers: bool,
    slots: Arc<Slots>,
    settles: mpsc::Sender<(Settle, Slot)>,
    /// When something was last claimed from a prompt lane.
    prompt_at: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl Line {
    fn new(hub: &Hub, strangers: bool) -> Line {
        let (settles, settled) = mpsc::channel(limits::SETTLE_BATCH * 2);
        let settled = Arc::new(Mutex::new(settled));
        for _ in 0..SETTLERS {
            hub.shutdown.spawn(settle_all(hub.clone(), settled.clone()));
        }
        let slots = Arc::new(Slots::new(hub, &channels(hub, strangers)));
        Line { strangers, slots, settles, prompt_at: Arc::default() }
    }
}

/// What those loops serve.
fn channels(hub: &Hub, strangers: bool) -> Vec<Channel> {
    let mut channels = hub.providers.channels();
    channels.retain(|channel| channel.calls_strangers() == strangers);
    channels
}

/// One claiming loop: of the prompt lanes, of the overflow lanes, so that a claim of hundreds out of a flood holds up no
/// claim of one; or of all.
struct Loop {
    hub: Hub,
    worker: Tsid,
    /// Of channels that call strangers, or of all others.
    strangers: bool,
    slots: Arc<Slots>,
    marks: Watermarks,
    lanes: Vec<Lane>,
    settles: mpsc::Sender<(Settle, Slot)>,
    prompt_at: Arc<std::sync::Mutex<Option<Instant>>>,
    /// Claims from these lanes alone.
    overflow: Option<bool>,
    next_poll: Instant,
    busy_until: Instant,
    claimed: u64,
}

impl Loop {
    /// `overflow`: of these lanes only.
    fn new(hub: &Hub, worker: Tsid, line: &Line, overflow: Option<bool>) -> Loop {
        let mut lanes = Lane::all_of(&channels(hub, line.strangers));
        lanes.retain(|lane| overflow.is_none_or(|overflow| lane.is_overflow() == overflow));
        Loop {
            slots: line.slots.clone(),
            hub: hub.clone(),
            worker,
            strangers: line.strangers,
            marks: Watermarks::default(),
            lanes,
            settles: line.settles.clone(),
            prompt_at: line.prompt_at.clone(),
            overflow,
            next_poll: Instant::now(),
            busy_until: Instant::now(),
            claimed: 0,
        }
    }

    /// Looks where something is known to be, and everywhere when it is time; then waits for whatever comes first.
    async fn turn(&mut self, overflow: bool) {
        let hub = self.hub.clone();
        let inbox = hub.wake.inbox(Share { strangers: self.strangers, overflow });
        // Registered before looking: what becomes ready while we look wakes us after it.
        let woken = inbox.notify.notified();
        let strange = !self.marks.wake(&inbox.take());
        let everywhere = strange || Instant::now() >= self.next_poll;
        if everywhere {
            let work = &hub.settings.work;
            let busy = Instant::now() < self.busy_until;
            let period = Duration::from_millis(if busy { work.poll_busy_ms } else { work.poll_idle_ms });
            self.next_poll = Instant::now() + period.mul_f64(0.8 + 0.4 * rand::random::<f64>());
        }
        match self.look(everywhere).await {
            Ok(0) => (),
            Ok(_) => self.busy_until = Instant::now() + Duration::from_secs(2),
            Err(e) => {
                tracing::warn!(error = %e, "the queue cannot be read; it is tried again");
                hub.shutdown.sleep(Duration::from_millis(500)).await;
                return;
            }
        }
        let wants_room = self.marks.any_active();
        if overflow {
            self.slots.overflow_wants(wants_room);
        }
        let now = hub.clock.now();
        if self.marks.any_active_of(&self.room(i64::MAX)) {
            return;
        }
        // A provider that could not be asked may be by then.
        let due = hub.provider_states.due(now).filter(|_| wants_room);
        let due = due.map(|at| Instant::now() + (at - hub.clock.now()).to_std().unwrap_or_default());
        let until = due.map_or(self.next_poll, |due| due.min(self.next_poll));
        tokio::select! {
            () = woken => (),
            () = self.slots.freed[usize::from(overflow)].notified(), if wants_room => (),
            () = tokio::time::sleep_until(until.into()) => (),
            () = hub.shutdown.stopping() => (),
        }
    }

    /// One claim; what it brought is on its way when this returns. Says how much that was.
    async fn look(&mut self, everywhere: bool) -> Result<usize> {
        if everywhere {
            let Some(channel) = self.lanes.first().map(|lane| lane.channel()) else { return Ok(0) };
            let shards = store::partner::shards(self.hub.store.serving(channel)).await?;
            self.marks.set_places(&shards, &self.lanes);
        }
        let batch = self.batch();
        self.prepare(batch).await?;
        let now = self.hub.clock.now();
        let looks = self.marks.plan(now, &self.room(batch), everywhere);
        if looks.is_empty() {
            return Ok(0);
        }
        // What may come is reserved before it is claimed: another loop claims at the same time, and what is claimed must
        // be called.
        let Some(mut reserved) = self.slots.reserve(&looks, self.overflow) else {
            looks.iter().for_each(|look| self.marks.passed_over(look));
            // Everywhere once more, as soon as the other has what it wanted.
            self.next_poll = self.next_poll.min(Instant::now() + limits::RESERVE_AGAIN);
            return Ok(0);
        };
        let _expected = self.hub.provider_states.expect(looks.iter().map(|look| (look.place.1.channel(), look.take)));
        let claim = match claim(&self.hub, self.worker, &looks, batch).await {
            Ok(claim) => claim,
            Err(e) => {
                looks.iter().for_each(|look| self.marks.forget(look));
                return Err(e);
            }
        };
        let seen: Vec<(Place, DateTime<Utc>)> =
            claim.rows.iter().map(|row| ((row.key.shard, row.lane), row.ready_at)).collect();
        self.learn(&looks, &seen, batch, now);
        self.claimed += seen.len() as u64;
        if !seen.is_empty() {
            if self.overflow == Some(false) {
                *self.prompt_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            self.send(claim, &mut reserved);
        }
        Ok(seen.len())
    }

    /// Room per channel: as much as may be held, and as its providers may be asked now.
    fn room(&self, batch: i64) -> HashMap<Channel, i64> {
        let (mut room, now) = (self.slots.room(batch, self.overflow), self.hub.clock.now());
        room.iter_mut().for_each(|(channel, room)| *room = self.hub.provider_states.room(*channel, now).min(*room));
        room.retain(|_, room| *room > 0);
        room
    }

    /// Takes from limits what is about to be claimed: where nothing is known to wait, nothing.
    async fn prepare(&self, batch: i64) -> Result<()> {
        let mut room = self.slots.room(batch, self.overflow);
        room.retain(|channel, _| {
            self.hub.provider_states.of(*channel).iter().any(|provider| provider.limit().is_some())
        });
        for (channel, room) in room {
            if self.marks.any_active_of(&HashMap::from([(channel, room)])) {
                limit::prepare(&self.hub, channel, room).await?;
            }
        }
        Ok(())
    }

    /// How many to claim at once.
    fn batch(&self) -> i64 {
        let most = i64::from(self.hub.settings.work.claim_batch);
        let prompt_at = *self.prompt_at.lock().unwrap_or_else(PoisonError::into_inner);
        let others = prompt_at.is_some_and(|at| at.elapsed() < limits::OTHERS_FOR);
        if self.overflow == Some(true) && others { most.min(limits::OVERFLOW_CLAIM) } else { most }
    }

    fn learn(&mut self, looks: &[Look], seen: &[(Place, DateTime<Utc>)], batch: i64, now: DateTime<Utc>) {
        let mut found: HashMap<Place, LookResult> = HashMap::new();
        for (place, ready_at) in seen {
            let found = found.entry(*place).or_insert(LookResult { rows: 0, last_ready_at: None });
            found.rows += 1;
            found.last_ready_at = found.last_ready_at.max(Some(*ready_at));
        }
        // When the claim as a whole came back full, places at its end may not have been looked at.
        let all_looked_at = (seen.len() as i64) < batch;
        for look in looks {
            match found.get(&look.place) {
                Some(found) if all_looked_at => self.marks.learn(look, *found, now),
                // Cut short by the limit of the whole, perhaps: more may be behind its last row.
                Some(found) => self.marks.learn(look, LookResult { rows: look.take, ..*found }, now),
                None if all_looked_at => self.marks.learn(look, LookResult { rows: 0, last_ready_at: None }, now),
                None => self.marks.passed_over(look),
            }
        }
    }

    /// Sends what was claimed on its way: contents are loaded while the next claim runs, then every delivery is called
    /// or what goes out in one request, by a task of its own.
    fn send(&self, claim: Claim, reserved: &mut Reserved) {
        let (hub, settles) = (self.hub.clone(), self.settles.clone());
        let mut slots: HashMap<DeliveryKey, Slot> =
            claim.rows.iter().filter_map(|row| Some((row.key, self.slots.take(row.lane, reserved)?))).collect();
        self.hub.shutdown.spawn(async move {
            let ready = hold(&hub, claim).await;
            for settle in ready.given_back {
                let Some(slot) = slots.remove(&settle.key) else { continue };
                let _never = settles.send((settle, slot)).await;
            }
            for request in requests(ready.held) {
                let mut mine: HashMap<DeliveryKey, Slot> =
                    request.iter().filter_map(|held| Some((held.key(), slots.remove(&held.key())?))).collect();
                let (hub, settles) = (hub.clone(), settles.clone());
                hub.clone().shutdown.spawn(async move {
                    for settle in call(&hub, request).await {
                        let Some(slot) = mine.remove(&settle.key) else { continue };
                        // The settlers end after the last sender: they are there.
                        let _never = settles.send((settle, slot)).await;
                    }
                });
            }
        });
    }
}

/// One batch is written while another's commit waits for the disk.
const SETTLERS: usize = 2;

/// Writes what calls came to, as many at once as have come meanwhile. A full channel holds the calls back.
async fn settle_all(hub: Hub, settled: Arc<Mutex<mpsc::Receiver<(Settle, Slot)>>>) {
    let mut waiting: Vec<(Settle, Slot)> = Vec::new();
    loop {
        if waiting.is_empty() && settled.lock().await.recv_many(&mut waiting, limits::SETTLE_BATCH).await == 0 {
            return;
        }
        // Two steps of one delivery (a late one and its successor's) are two batches.
        let mut keys = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(s, _)| keys.insert(s.key));
        waiting = later;
        let (batch, slots): (Vec<Settle>, Vec<Slot>) = now.into_iter().unzip();
        settle_surely(&hub, batch).await;
        drop(slots);
    }
}

/// Tries until it is written: also after the lease is over an answer is evidence, kept on its attempt. Only a stopping
/// process gives up, when the lease would be over anyhow; the reaper takes it from there.
async fn settle_surely(hub: &Hub, batch: Vec<Settle>) {
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match settle(hub, batch.clone()).await {
            Ok(()) => return,
            Err(Error::Unavailable(Unavailable { why, .. }))
                if !hub.shutdown.is_stopping() || began.elapsed() < hub.settings.timing.lease() =>
            {
                tracing::warn!(why, steps = batch.len(), "outcomes could not be written; it is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(e) if batch.len() > 1 && (!matches!(e, Error::Unavailable(_)) || is_locked(&e)) => {
                tracing::error!(error = %e, steps = batch.len(), "a batch of outcomes was refused; each is tried alone");
                for one in batch {
                    Box::pin(settle_surely(hub, vec![one])).await;
                }
                return;
            }
            Err(e) => {
                tracing::error!(error = %e, steps = batch.len(), "outcomes could not be written; the reaper will find them");
                return;
            }
        }
    }
}

/// Somebody holds a row for longer than we wait: the others of its batch need not wait with it.
fn is_locked(e: &Error) -> bool {
    matches!(e, Error::Unavailable(Unavailable { kind: UnavailableKind::Locked, .. }))
}

/// How many deliveries of each channel may be held.
struct Slots {
    by_channel: HashMap<Channel, ChannelLoad>,
    /// Something waits in overflow lanes.
    overflow_wants: AtomicBool,
    /// One for each loop that may wait for it.
    freed: Arc<[Notify; 2]>,
}

/// What is held of one channel.
struct ChannelLoad {
    most: usize,
    slots: Arc<Semaphore>,
    /// Of prompt lanes, and of overflow.
    of_side: [Arc<AtomicUsize>; 2],
    gauge: IntGauge,
}

/// One delivery held; free again when dropped.
struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    of_side: Arc<AtomicUsize>,
    gauge: IntGauge,
    freed: Arc<[Notify; 2]>,
}

/// Room kept for a claim; what it did not bring is free again when dropped.
struct Reserved {
    by_channel: HashMap<Channel, OwnedSemaphorePermit>,
    other: Option<bool>,
    freed: Arc<[Notify; 2]>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.by_channel.clear();
        if let Some(overflow) = self.other {
            self.freed[usize::from(overflow)].notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gauge.dec();
        self.of_side.fetch_sub(1, Ordering::Relaxed);
        // Free first, then told: who is woken must see it.
        drop(self.permit.take());
        self.freed.iter().for_each(Notify::notify_one);
    }
}

impl Slots {
    fn new(hub: &Hub, channels: &[Channel]) -> Slots {
        let held = |&channel: &Channel| {
            let at_once = hub.providers.of(channel).iter().map(|account| account.provider.at_once());
            let most = at_once.fold(0, usize::saturating_add).min(hub.settings.work.in_flight as usize);
            let gauge = hub.metrics.in_flight.with_label_values(&[channel.as_str()]);
            Some((
                channel,
                ChannelLoad { most, slots: Arc::new(Semaphore::new(most)), of_side: Default::default(), gauge },
            ))
        };
        let by_channel = channels.iter().filter_map(held).collect();
        Slots { by_channel, overflow_wants: AtomicBool::new(false), freed: Arc::default() }
    }

    /// Room per channel for one side's loop, `batch` at most. A channel nearly full has none: claims of one or two rows
    /// cost as much as claims of hundreds, so it waits until an eighth is free. A quarter is prompt lanes' own, and while
    /// something waits in overflow an eighth is its own: neither starves the other on a provider that is slow.
    fn room(&self, batch: i64, overflow: Option<bool>) -> HashMap<Channel, i64> {
        let room = |held: &ChannelLoad| {
            let own = |part: usize| if held.most > 1 { (held.most / part).max(1) } else { 0 };
            let of_side = |side: usize| held.of_side[side].load(Ordering::Relaxed);
            let kept = match overflow {
                Some(true) => own(4).saturating_sub(of_side(0)),
                Some(false) if self.overflow_wants.load(Ordering::Relaxed) => own(8).saturating_sub(of_side(1)),
                _ => 0,
            };
            let free = held.slots.available_permits().saturating_sub(kept);
            if free >= (held.most / 8).max(1) { i64::try_from(free).unwrap_or(i64::MAX).min(batch) } else { 0 }
        };
        self.by_channel.iter().map(|(&channel, held)| (channel, room(held))).filter(|(_, room)| *room > 0).collect()
    }

    fn overflow_wants(&self, wants: bool) {
        if self.overflow_wants.swap(wants, Ordering::Relaxed) && !wants {
            // What was kept is free for the other.
            self.freed[0].notify_one();
        }
    }

    /// Room for all that these looks may bring; none when another loop was faster.
    fn reserve(&self, looks: &[Look], overflow: Option<bool>) -> Option<Reserved> {
        let other = overflow.map(|mine| !mine);
        let mut takes: HashMap<Channel, i64> = HashMap::new();
        looks.iter().for_each(|look| *takes.entry(look.place.1.channel()).or_default() += look.take);
        let mut reserved = Reserved { by_channel: HashMap::new(), other, freed: self.freed.clone() };
        for (channel, take) in takes {
            let slots = self.by_channel.get(&channel)?.slots.clone();
            let permit = slots.try_acquire_many_owned(u32::try_from(take).ok()?).ok()?;
            reserved.by_channel.insert(channel, permit);
        }
        Some(reserved)
    }

    /// Of what was reserved.
    fn take(&self, lane: Lane, reserved: &mut Reserved) -> Option<Slot> {
        let held = self.by_channel.get(&lane.channel())?;
        let permit = reserved.by_channel.get_mut(&lane.channel())?.split(1)?;
        held.gauge.inc();
        let of_side = held.of_side[usize::from(lane.is_overflow())].clone();
        of_side.fetch_add(1, Ordering::Relaxed);
        Some(Slot { permit: Some(permit), of_side, gauge: held.gauge.clone(), freed: self.freed.clone() })
    }

    fn all_free(&self) -> bool {
        self.by_channel.values().all(|held| held.slots.available_permits() == held.most)
    }
}
