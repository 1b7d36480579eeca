//! The claiming loop: looks where something is, calls what it claimed, and settles in batches. The next batch is claimed
//! while the present one is being sent; how much is held at once is bounded per channel, so that a provider that hangs
//! holds up its own channel only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::{Error, Result};
use crate::flow::deliver::{Held, call, claim, settle};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::watermark::{Found, Look, Watermarks};
use crate::store::{self, delivery::Settle};

/// Until the process stops.
pub fn start(hub: &Hub, worker: Tsid) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        let mut loop_ = Loop::new(&hub, worker);
        while !hub.shutdown.is_stopping() {
            loop_.turn().await;
        }
        let leaving = store::worker::forget(hub.store.engine(), chrono::DateTime::UNIX_EPOCH, Some(worker)).await;
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
        let brought = loop_.look(true).await?;
        if brought == 0 && loop_.slots.all_free() {
            break;
        }
        if brought == 0 {
            loop_.slots.freed.notified().await;
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
        hub.shutdown.spawn(settle_all(hub.clone(), settled));
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
        let hints = hub.wake.take_here();
        let places: Vec<_> = hints.places.into_iter().collect();
        let strange = !places.is_empty() && !self.marks.wake(&places);
        if hints.anywhere {
            self.marks.wake(&[]);
        }
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
        if wants_room && !self.slots.room(i64::MAX).is_empty() {
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
        self.learn(&looks, &claim.seen, batch, now);
        let brought = claim.seen.len();
        self.claimed += brought as u64;
        for held in claim.held {
            self.send(held);
        }
        Ok(brought)
    }

    fn learn(
        &mut self,
        looks: &[Look],
        seen: &[(crate::model::watermark::Place, chrono::DateTime<chrono::Utc>)],
        batch: i64,
        now: chrono::DateTime<chrono::Utc>,
    ) {
        // When the whole claim came back full, places at its end may not have been looked at.
        if seen.len() as i64 >= batch {
            for look in looks {
                let brought = seen.iter().any(|(place, _)| *place == look.place);
                if !brought {
                    self.marks.wake(&[look.place]);
                }
            }
        }
        let all_looked_at = (seen.len() as i64) < batch;
        for look in looks {
            let mine = || seen.iter().filter(|(place, _)| *place == look.place);
            let found = Found { rows: mine().count() as i64, last_ready_at: mine().map(|(_, at)| *at).max() };
            if found.rows > 0 || all_looked_at {
                self.marks.learn(look, found, now);
            }
        }
    }

    fn send(&self, held: Held) {
        let Some(slot) = self.slots.take(held.claimed.head.channel) else { return };
        let (hub, settles) = (self.hub.clone(), self.settles.clone());
        self.hub.shutdown.spawn(async move {
            let settle = call(&hub, held).await;
            // The settler ends after the last sender: it is there.
            let _never = settles.send((settle, slot)).await;
        });
    }
}

/// Writes what calls came to, as many at once as have come meanwhile. A full channel holds the calls back.
async fn settle_all(hub: Hub, mut settled: mpsc::Receiver<(Settle, Slot)>) {
    let mut waiting: Vec<(Settle, Slot)> = Vec::new();
    loop {
        let room = limits::SETTLE_BATCH - waiting.len().min(limits::SETTLE_BATCH - 1);
        if settled.recv_many(&mut waiting, room).await == 0 && waiting.is_empty() {
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

/// Tries until the lease would be over anyhow; then the reaper takes it from there.
async fn settle_surely(hub: &Hub, batch: Vec<Settle>) {
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match settle(hub, batch.clone()).await {
            Ok(()) => return,
            Err(Error::Unavailable(why)) if began.elapsed() < hub.settings.timing.lease() => {
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
    most: usize,
    by_channel: HashMap<Channel, (Arc<Semaphore>, IntGauge)>,
    freed: Arc<Notify>,
}

/// One delivery held; free again when dropped.
struct Slot {
    _permit: OwnedSemaphorePermit,
    gauge: IntGauge,
    freed: Arc<Notify>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gauge.dec();
        self.freed.notify_one();
    }
}

impl Slots {
    fn new(hub: &Hub, channels: &[Channel]) -> Slots {
        let most = hub.settings.work.in_flight as usize;
        let slot = |&c: &Channel| {
            (c, (Arc::new(Semaphore::new(most)), hub.metrics.in_flight.with_label_values(&[c.as_str()])))
        };
        Slots { most, by_channel: channels.iter().map(slot).collect(), freed: Arc::default() }
    }

    /// Room per channel, `batch` at most. A channel nearly full has none: claims of one or two rows cost as much as
    /// claims of hundreds, so it waits until a quarter is free.
    fn room(&self, batch: i64) -> HashMap<Channel, i64> {
        let least = (self.most / 4).max(1);
        self.by_channel
            .iter()
            .filter(|(_, (slots, _))| slots.available_permits() >= least)
            .map(|(&channel, (slots, _))| (channel, (slots.available_permits() as i64).min(batch)))
            .collect()
    }

    fn take(&self, channel: Channel) -> Option<Slot> {
        let (slots, gauge) = self.by_channel.get(&channel)?;
        let permit = slots.clone().try_acquire_owned().ok()?;
        gauge.inc();
        Some(Slot { _permit: permit, gauge: gauge.clone(), freed: self.freed.clone() })
    }

    fn all_free(&self) -> bool {
        self.by_channel.values().all(|(slots, _)| slots.available_permits() == self.most)
    }
}
