//! The claiming loops: each claims deliveries where some are known to wait, has them called, and settles the outcomes
//! in batches. The next batch is claimed while the present one is being sent. The number of claimed deliveries is
//! bounded per channel, so that a provider that hangs delays its own channel only. Webhooks call endpoints of partners
//! (`partner_servers`), which may be slow: they have loops, settlers and connections of their own.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::settler::{self, settle_with_retries};
use super::slots::{Reserved, Slot, Slots};
use crate::error::Result;
use crate::flow::delivery::call::{call, group_into_requests};
use crate::flow::delivery::claim::{Claim, claim};
use crate::flow::delivery::load::load;
use crate::flow::delivery::{breaker, limit, promote, reap, suspect};
use crate::hub::Hub;
use crate::hub::wake::LaneGroup;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::DeliveryKey;
use crate::model::lane::Lane;
use crate::model::watermark::{PlannedClaim, PlannedClaimResult, ShardLane, Watermarks};
use crate::store::{self, delivery::Settle};

/// Starts the claiming loops as tasks, which run until the process stops. Then the worker is removed from the list of
/// workers, and the unused grants of rate limits are reported once all claimed deliveries are settled.
pub fn start(hub: &Hub, worker: Tsid) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        let groups = [false, true].map(|partner_servers| ChannelGroup::new(&hub, partner_servers));
        let sides = groups.iter().flat_map(|group| [false, true].map(|overflow| (group, overflow)));
        let sides = sides.map(|(group, overflow)| {
            let mut loop_ = ClaimLoop::new(&hub, worker, group, Some(overflow));
            hub.shutdown.spawn(async move {
                while !loop_.hub.shutdown.is_stopping() {
                    loop_.run_once(overflow).await;
                }
            })
        });
        for side in sides.collect::<Vec<_>>() {
            // A panic of the task was logged by the panic hook.
            let _ended = side.await;
        }
        let leaving = store::worker::delete_stale(hub.store.engine(), DateTime::UNIX_EPOCH, Some(worker)).await;
        if let Err(e) = leaving {
            tracing::debug!(
                error = %e,
                "the worker could not be removed from the list of workers; others remove it after five minutes"
            );
        }
        // A delivery that is settled puts back its unused grant: wait for all, so that all grants are reported.
        for group in groups {
            while !group.slots.all_free() {
                group.slots.freed[0].notified().await;
            }
        }
        if let Err(e) = limit::report_grants(&hub, true).await {
            tracing::debug!(error = %e, "the unused grants of rate limits could not be reported; they expire");
        }
    });
}

/// Delivers everything that is due now, once: reaps, relays, promotes, delivers suspects, then claims and calls.
/// Returns the number of claimed deliveries when nothing is left to claim and every outcome is written. Deliveries
/// whose provider cannot be called now stay for another run.
///
/// # Errors
/// `Error::Unavailable` if the database fails. Deliveries already claimed are settled by their tasks all the same.
pub async fn deliver_due(hub: &Hub) -> Result<u64> {
    let worker = hub.next_id();
    let mut loops = [false, true]
        .map(|partner_servers| ClaimLoop::new(hub, worker, &ChannelGroup::new(hub, partner_servers), None));
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
                tracing::warn!(error = %e, "requests enqueued in SQL could not be relayed; they wait for the next run");
                break;
            }
        }
    }
    while promote::promote(hub, &mut promoter, &shards).await? > 0 {}
    let mut alone = 0;
    while deliver_one_suspect(hub, worker, &shards, &hub.providers.channels()).await? {
        alone += 1;
    }
    while crate::flow::channel::restart_stalled(hub, &mut Default::default()).await? {}
    breaker::refresh(hub).await?;
    while !hub.shutdown.is_stopping() {
        // First the places where something is known to wait, which at the start are all; then all places once more. A
        // claim made while a channel has no room proves nothing about that channel.
        let all_free = loops.iter().all(|l| l.slots.all_free());
        // Deliveries whose provider cannot be called now wait for another run.
        let idle = |loop_: &ClaimLoop| !loop_.marks.any_active_with_room(&loop_.room(i64::MAX));
        let everywhere = loops.iter().all(idle);
        let mut found = 0;
        for loop_ in &mut loops {
            found += loop_.claim_batch(everywhere).await?;
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
            // The last outcome may have completed a message, whose event is then delivered, too.
            if !crate::flow::publish::publish_completions(hub).await? {
                break;
            }
        }
    }
    limit::report_grants(hub, true).await?;
    crate::flow::channel::note_answers(hub).await?;
    Ok(loops.iter().map(|l| l.claimed).sum::<u64>() + alone)
}

/// Delivers one suspect of these channels: a delivery whose worker was lost. Returns false if none is due.
///
/// # Errors
/// `Error::Unavailable` if the database fails; a claimed suspect is taken back when its lease ends.
pub async fn deliver_one_suspect(hub: &Hub, worker: Tsid, shards: &[i16], channels: &[Channel]) -> Result<bool> {
    if hub.shutdown.is_stopping() {
        return Ok(false);
    }
    let Some(settles) = suspect::call_next(hub, worker, shards, channels).await? else { return Ok(false) };
    let keys: Vec<(i16, Tsid)> = settles.iter().map(|s| (s.key.shard, s.key.message_id)).collect();
    settle_with_retries(hub, settles).await;
    for key in keys {
        suspect::forget(hub, key).await?;
    }
    Ok(true)
}

/// State shared by the two claiming loops (prompt, overflow) of one group of channels: those that call partners'
/// endpoints, or all others. Holds the slots and the queue of the tasks that write outcomes.
struct ChannelGroup {
    partner_servers: bool,
    slots: Arc<Slots>,
    settles: mpsc::Sender<(Settle, Slot)>,
    /// When a delivery was last claimed from a prompt lane.
    prompt_at: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl ChannelGroup {
    fn new(hub: &Hub, partner_servers: bool) -> ChannelGroup {
        let settles = settler::start(hub);
        let slots = Arc::new(Slots::new(hub, &channels(hub, partner_servers)));
        ChannelGroup { partner_servers, slots, settles, prompt_at: Arc::default() }
    }
}

/// Channels of one group.
fn channels(hub: &Hub, partner_servers: bool) -> Vec<Channel> {
    let mut channels = hub.providers.channels();
    channels.retain(|channel| channel.calls_partner_servers() == partner_servers);
    channels
}

/// One claiming loop: of the prompt lanes or of the overflow lanes, so that a claim of hundreds from an overflow lane
/// does not delay a claim of one; or of all lanes.
struct ClaimLoop {
    hub: Hub,
    worker: Tsid,
    /// Serves the channels that call partners' endpoints, or all others.
    partner_servers: bool,
    slots: Arc<Slots>,
    marks: Watermarks,
    lanes: Vec<Lane>,
    settles: mpsc::Sender<(Settle, Slot)>,
    prompt_at: Arc<std::sync::Mutex<Option<Instant>>>,
    /// Claims from overflow lanes only, or from prompt lanes only; None: from both.
    overflow: Option<bool>,
    next_poll: Instant,
    busy_until: Instant,
    claimed: u64,
}

impl ClaimLoop {
    /// `overflow`: claims from overflow lanes only, or from prompt lanes only; None: from both.
    fn new(hub: &Hub, worker: Tsid, group: &ChannelGroup, overflow: Option<bool>) -> ClaimLoop {
        let mut lanes = Lane::all_of(&channels(hub, group.partner_servers));
        lanes.retain(|lane| overflow.is_none_or(|overflow| lane.is_overflow() == overflow));
        ClaimLoop {
            slots: group.slots.clone(),
            hub: hub.clone(),
            worker,
            partner_servers: group.partner_servers,
            marks: Watermarks::default(),
            lanes,
            settles: group.settles.clone(),
            prompt_at: group.prompt_at.clone(),
            overflow,
            next_poll: Instant::now(),
            busy_until: Instant::now(),
            claimed: 0,
        }
    }

    /// Claims where something is known to wait, and everywhere when the poll is due; then waits for a hint, a free
    /// slot, a provider that can be called again, or the next poll.
    async fn run_once(&mut self, overflow: bool) {
        let hub = self.hub.clone();
        let inbox = hub.wake.inbox(LaneGroup { partner_servers: self.partner_servers, overflow });
        // Register for the wake-up before querying, so that a delivery that becomes ready during the query still wakes
        // this loop.
        let woken = inbox.notify.notified();
        let unknown_place = !self.marks.apply_hints(&inbox.take());
        let everywhere = unknown_place || Instant::now() >= self.next_poll;
        if everywhere {
            let work = &hub.settings.work;
            let busy = Instant::now() < self.busy_until;
            let period = Duration::from_millis(if busy { work.poll_busy_ms } else { work.poll_idle_ms });
            self.next_poll = Instant::now() + period.mul_f64(0.8 + 0.4 * rand::random::<f64>());
        }
        match self.claim_batch(everywhere).await {
            Ok(0) => (),
            Ok(_) => self.busy_until = Instant::now() + Duration::from_secs(2),
            Err(e) => {
                tracing::warn!(error = %e, "deliveries could not be claimed; the claim is tried again");
                hub.shutdown.sleep(Duration::from_millis(500)).await;
                return;
            }
        }
        let wants_room = self.marks.any_active();
        if overflow {
            self.slots.overflow_wants(wants_room);
        }
        let now = hub.clock.now();
        if self.marks.any_active_with_room(&self.room(i64::MAX)) {
            return;
        }
        // When a provider that cannot be called now may be called again.
        let due = hub.provider_states.next_retry_at(now).filter(|_| wants_room);
        let due = due.map(|at| Instant::now() + (at - hub.clock.now()).to_std().unwrap_or_default());
        let until = due.map_or(self.next_poll, |due| due.min(self.next_poll));
        tokio::select! {
            () = woken => (),
            () = self.slots.freed[usize::from(overflow)].notified(), if wants_room => (),
            () = tokio::time::sleep_until(until.into()) => (),
            () = hub.shutdown.stopping() => (),
        }
    }

    /// Makes one claim and hands what it brought to tasks that call it. Returns how many deliveries were claimed.
    async fn claim_batch(&mut self, everywhere: bool) -> Result<usize> {
        if everywhere {
            let Some(channel) = self.lanes.first().map(|lane| lane.channel()) else { return Ok(0) };
            let shards = store::partner::shards(self.hub.store.pool_for(channel)).await?;
            self.marks.set_places(&shards, &self.lanes);
        }
        let batch = self.batch_size();
        self.lease_limits(batch).await?;
        let now = self.hub.clock.now();
        let looks = self.marks.plan_claims(now, &self.room(batch), everywhere);
        if looks.is_empty() {
            return Ok(0);
        }
        // Slots are reserved before the claim: another loop claims at the same time, and a claimed delivery must be
        // called.
        let Some(mut reserved) = self.slots.reserve(&looks, self.overflow) else {
            looks.iter().for_each(|look| self.marks.record_skipped(look));
            // Poll everywhere once more, soon after the other loop has its slots.
            self.next_poll = self.next_poll.min(Instant::now() + limits::RESERVE_AGAIN);
            return Ok(0);
        };
        let _expected =
            self.hub.provider_states.expect_claim(looks.iter().map(|look| (look.place.1.channel(), look.rows)));
        let claim = match claim(&self.hub, self.worker, &looks, batch).await {
            Ok(claim) => claim,
            Err(e) => {
                looks.iter().for_each(|look| self.marks.record_failed(look));
                return Err(e);
            }
        };
        let seen: Vec<(ShardLane, DateTime<Utc>)> =
            claim.rows.iter().map(|row| ((row.key.shard, row.lane), row.ready_at)).collect();
        self.update_watermarks(&looks, &seen, batch, now);
        self.claimed += seen.len() as u64;
        if !seen.is_empty() {
            if self.overflow == Some(false) {
                *self.prompt_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            self.dispatch(claim, &mut reserved);
        }
        Ok(seen.len())
    }

    /// Room per channel: free slots, bounded by what its providers can take now.
    fn room(&self, batch: i64) -> HashMap<Channel, i64> {
        let (mut room, now) = (self.slots.room(batch, self.overflow), self.hub.clock.now());
        room.iter_mut().for_each(|(channel, room)| *room = self.hub.provider_states.room(*channel, now).min(*room));
        room.retain(|_, room| *room > 0);
        room
    }

    /// Leases grants of rate limits for the deliveries about to be claimed; none for channels where nothing is known to
    /// wait.
    async fn lease_limits(&self, batch: i64) -> Result<()> {
        let mut room = self.slots.room(batch, self.overflow);
        room.retain(|channel, _| {
            self.hub.provider_states.of(*channel).iter().any(|provider| provider.limit().is_some())
        });
        for (channel, room) in room {
            if self.marks.any_active_with_room(&HashMap::from([(channel, room)])) {
                limit::lease_ahead(&self.hub, channel, room).await?;
            }
        }
        Ok(())
    }

    /// How many deliveries to claim at once: fewer from overflow lanes while prompt lanes are busy.
    fn batch_size(&self) -> i64 {
        let most = i64::from(self.hub.settings.work.claim_batch);
        let prompt_at = *self.prompt_at.lock().unwrap_or_else(PoisonError::into_inner);
        let others = prompt_at.is_some_and(|at| at.elapsed() < limits::OTHERS_FOR);
        if self.overflow == Some(true) && others { most.min(limits::OVERFLOW_CLAIM) } else { most }
    }

    fn update_watermarks(
        &mut self,
        looks: &[PlannedClaim],
        seen: &[(ShardLane, DateTime<Utc>)],
        batch: i64,
        now: DateTime<Utc>,
    ) {
        let mut found: HashMap<ShardLane, PlannedClaimResult> = HashMap::new();
        for (place, ready_at) in seen {
            let found = found.entry(*place).or_insert(PlannedClaimResult { rows: 0, last_ready_at: None });
            found.rows += 1;
            found.last_ready_at = found.last_ready_at.max(Some(*ready_at));
        }
        // When the claim as a whole came back full, the places at its end may not have been read.
        let all_looked_at = (seen.len() as i64) < batch;
        for look in looks {
            match found.get(&look.place) {
                Some(found) if all_looked_at => self.marks.record_result(look, *found, now),
                // The limit of the whole claim may have cut it short: more may wait behind its last row.
                Some(found) => self.marks.record_result(look, PlannedClaimResult { rows: look.rows, ..*found }, now),
                None if all_looked_at => {
                    self.marks.record_result(look, PlannedClaimResult { rows: 0, last_ready_at: None }, now)
                }
                None => self.marks.record_skipped(look),
            }
        }
    }

    /// Starts the tasks that load and call a claim, and returns at once: contents are loaded while the next claim runs,
    /// and each request has a task of its own.
    fn dispatch(&self, claim: Claim, reserved: &mut Reserved) {
        let (hub, settles) = (self.hub.clone(), self.settles.clone());
        let mut slots: HashMap<DeliveryKey, Slot> =
            claim.rows.iter().filter_map(|row| Some((row.key, self.slots.take(row.lane, reserved)?))).collect();
        self.hub.shutdown.spawn(async move {
            let ready = load(&hub, claim).await;
            for settle in ready.given_back {
                let Some(slot) = slots.remove(&settle.key) else { continue };
                let _never = settles.send((settle, slot)).await;
            }
            for request in group_into_requests(ready.held) {
                let mut mine: HashMap<DeliveryKey, Slot> =
                    request.iter().filter_map(|held| Some((held.key(), slots.remove(&held.key())?))).collect();
                let (hub, settles) = (hub.clone(), settles.clone());
                hub.clone().shutdown.spawn(async move {
                    for settle in call(&hub, request).await {
                        let Some(slot) = mine.remove(&settle.key) else { continue };
                        // Cannot fail: the settlers end after the last sender.
                        let _never = settles.send((settle, slot)).await;
                    }
                });
            }
        });
    }
}
