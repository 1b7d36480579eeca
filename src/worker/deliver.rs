//! The claiming loop: looks where something is, calls what it claimed, and settles in batches. The next batch is claimed
//! while the present one is being sent; how much is held at once is bounded per channel, so that a provider that hangs
//! holds up its own channel only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::IntGauge;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::{Error, Result};
use crate::flow::deliver::{Claim, call, claim, hold, settle};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::Key;
use crate::model::watermark::{Found, Look, Place, Room, Watermarks};
use crate::store::{self, delivery::Settle};

/// Until the process stops.
pub fn start(hub: &Hub, worker: Tsid) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        let mut loop_ = Loop::new(&hub, worker);
        while !hub.shutdown.is_stopping() {
            loop_.turn().await;
        }
        let leaving = store::worker::forget(hub.store.engine(), DateTime::UNIX_EPOCH, Some(worker)).await;
        if let Err(e) = leaving {
            tracing::debug!(error = %e, "the worker could not sign off; others forget it in time");
        }
    });
}

/// Delivers what is due now, and returns when nothing is left to claim and all that was claimed is settled.
pub async fn once(hub: &Hub) -> Result<u64> {
    let worker = hub.next_id();
    let mut loop_ = Loop::new(hub, worker);
    let shards = store::partner::shards(hub.store.engine()).await?;
    let mut reaper = crate::flow::reap::Reaper::default();
    let mut promoter = crate::flow::promote::Promoter::default();
    crate::flow::reap::reap(hub, &mut reaper, &shards).await?;
    while crate::flow::promote::promote(hub, &mut promoter, &shards).await? > 0 {}
    while !hub.shutdown.is_stopping() {
        // First where something is known to be, which at the start is everywhere; then once more everywhere. A look while
        // a channel has no room says nothing about that channel.
        let all_free = loop_.slots.all_free();
        let everywhere = !loop_.marks.any_active();
        if loop_.look(everywhere).await? > 0 {
            continue;
        }
        if !all_free {
            loop_.slots.freed.notified().await;
        } else if everywhere {
            break;
        }
    }
    Ok(loop_.claimed)
}

struct Loop {
    hub: Hub,
    worker: Tsid,
    slots: Slots,
    marks: Watermarks,
    channels: Vec<Channel>,
    settles: mpsc::Sender<(Settle, Slot)>,
    next_poll: Instant,
    busy_until: Instant,
    claimed: u64,
}

impl Loop {
    fn new(hub: &Hub, worker: Tsid) -> Loop {
        let channels = hub.providers.channels();
        let (settles, settled) = mpsc::channel(limits::SETTLE_BATCH * 2);
        let settled = Arc::new(Mutex::new(settled));
        for _ in 0..SETTLERS {
            hub.shutdown.spawn(settle_all(hub.clone(), settled.clone()));
        }
        Loop {
            slots: Slots::new(hub, &channels),
            hub: hub.clone(),
            worker,
            marks: Watermarks::default(),
            channels,
            settles,
            next_poll: Instant::now(),
            busy_until: Instant::now(),
            claimed: 0,
        }
    }

    /// Looks where something is known to be, and everywhere when it is time; then waits for whatever comes first.
    async fn turn(&mut self) {
        let hub = self.hub.clone();
        // Registered before looking: what becomes ready while we look wakes us after it.
        let woken = hub.wake.here_notify.notified();
        let strange = !self.marks.wake(&hub.wake.take_here());
        let everywhere = strange || Instant::now() >= self.next_poll;
        match self.look(everywhere).await {
            Ok(0) => (),
            Ok(_) => self.busy_until = Instant::now() + Duration::from_secs(2),
            Err(e) => {
                tracing::warn!(error = %e, "the queue cannot be read; it is tried again");
                hub.shutdown.sleep(Duration::from_millis(500)).await;
                return;
            }
        }
        if everywhere {
            let work = &hub.settings.work;
            let busy = Instant::now() < self.busy_until;
            let period = Duration::from_millis(if busy { work.poll_busy_ms } else { work.poll_idle_ms });
            self.next_poll = Instant::now() + period.mul_f64(0.8 + 0.4 * rand::random::<f64>());
        }
        let wants_room = self.marks.any_active();
        if self.marks.any_active_of(&self.slots.room(i64::MAX)) {
            return;
        }
        tokio::select! {
            () = woken => (),
            () = self.slots.freed.notified(), if wants_room => (),
            () = tokio::time::sleep_until(self.next_poll.into()) => (),
            () = hub.shutdown.stopping() => (),
        }
    }

    /// One claim; what it brought is on its way when this returns. Says how much that was.
    async fn look(&mut self, everywhere: bool) -> Result<usize> {
        if everywhere {
            let shards = store::partner::shards(self.hub.store.engine()).await?;
            self.marks.set_places(&shards, &self.channels);
        }
        let batch = i64::from(self.hub.settings.work.claim_batch);
        let now = self.hub.clock.now();
        let looks = self.marks.plan(now, &self.slots.room(batch), everywhere);
        if looks.is_empty() {
            return Ok(0);
        }
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
            self.send(claim);
        }
        Ok(seen.len())
    }

    fn learn(&mut self, looks: &[Look], seen: &[(Place, DateTime<Utc>)], batch: i64, now: DateTime<Utc>) {
        let mut found: HashMap<Place, Found> = HashMap::new();
        for (place, ready_at) in seen {
            let found = found.entry(*place).or_insert(Found { rows: 0, last_ready_at: None });
            found.rows += 1;
            found.last_ready_at = found.last_ready_at.max(Some(*ready_at));
        }
        // When the claim as a whole came back full, places at its end may not have been looked at.
        let all_looked_at = (seen.len() as i64) < batch;
        for look in looks {
            match found.get(&look.place) {
                Some(found) if all_looked_at => self.marks.learn(look, *found, now),
                // Cut short by the limit of the whole, perhaps: more may be behind its last row.
                Some(found) => self.marks.learn(look, Found { rows: look.take, ..*found }, now),
                None if all_looked_at => self.marks.learn(look, Found { rows: 0, last_ready_at: None }, now),
                None => self.marks.forget(look),
            }
        }
    }

    /// Sends what was claimed on its way: contents are loaded while the next claim runs, then every delivery is called
    /// by a task of its own.
    fn send(&self, claim: Claim) {
        let (hub, settles) = (self.hub.clone(), self.settles.clone());
        let mut slots: HashMap<Key, Slot> =
            claim.rows.iter().filter_map(|row| Some((row.key, self.slots.take(row.head.channel)?))).collect();
        self.hub.shutdown.spawn(async move {
            let ready = hold(&hub, claim).await;
            for settle in ready.given_back {
                let Some(slot) = slots.remove(&settle.key) else { continue };
                let _never = settles.send((settle, slot)).await;
            }
            for held in ready.held {
                let Some(slot) = slots.remove(&held.key()) else { continue };
                let (hub, settles) = (hub.clone(), settles.clone());
                hub.clone().shutdown.spawn(async move {
                    let settle = call(&hub, held).await;
                    // The settlers end after the last sender: they are there.
                    let _never = settles.send((settle, slot)).await;
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
            Err(Error::Unavailable(why))
                if !hub.shutdown.is_stopping() || began.elapsed() < hub.settings.timing.lease() =>
            {
                tracing::warn!(why, steps = batch.len(), "outcomes could not be written; it is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(e) if batch.len() > 1 && !matches!(e, Error::Unavailable(_)) => {
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

/// How many deliveries of each channel may be held.
struct Slots {
    by_channel: HashMap<Channel, Held>,
    freed: Arc<Notify>,
}

/// What is held of one channel.
struct Held {
    most: usize,
    slots: Arc<Semaphore>,
    gauge: IntGauge,
}

/// One delivery held; free again when dropped.
struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    gauge: IntGauge,
    freed: Arc<Notify>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gauge.dec();
        // Free first, then told: who is woken must see it.
        drop(self.permit.take());
        self.freed.notify_one();
    }
}

impl Slots {
    fn new(hub: &Hub, channels: &[Channel]) -> Slots {
        let held = |&channel: &Channel| {
            let provider = hub.providers.of(channel)?;
            let most = provider.at_once().min(hub.settings.work.in_flight as usize);
            let gauge = hub.metrics.in_flight.with_label_values(&[channel.as_str()]);
            Some((channel, Held { most, slots: Arc::new(Semaphore::new(most)), gauge }))
        };
        Slots { by_channel: channels.iter().filter_map(held).collect(), freed: Arc::default() }
    }

    /// Room per channel, `batch` at most. A channel nearly full has none: claims of one or two rows cost as much as
    /// claims of hundreds, so it waits until an eighth is free. A quarter is kept free of overflow.
    fn room(&self, batch: i64) -> HashMap<Channel, Room> {
        let room = |free: usize, most: usize| {
            let least = (most / 8).max(1);
            if free >= least { i64::try_from(free).unwrap_or(i64::MAX).min(batch) } else { 0 }
        };
        self.by_channel
            .iter()
            .map(|(&channel, held)| {
                let free = held.slots.available_permits();
                let overflow = room(free.saturating_sub(held.most / 4), held.most);
                (channel, Room { all: room(free, held.most), overflow })
            })
            .filter(|(_, room)| room.all > 0)
            .collect()
    }

    fn take(&self, channel: Channel) -> Option<Slot> {
        let held = self.by_channel.get(&channel)?;
        let permit = held.slots.clone().try_acquire_owned().ok()?;
        held.gauge.inc();
        Some(Slot { permit: Some(permit), gauge: held.gauge.clone(), freed: self.freed.clone() })
    }

    fn all_free(&self) -> bool {
        self.by_channel.values().all(|held| held.slots.available_permits() == held.most)
    }
}
