//! Slots: how many deliveries of each channel this process may hold at once, and the shares of prompt and overflow
//! lanes in them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::hub::Hub;
use crate::model::channel::Channel;
use crate::model::lane::Lane;
use crate::model::watermark::PlannedClaim;

/// Slots per channel: how many deliveries this process may hold at once.
pub(super) struct Slots {
    by_channel: HashMap<Channel, ChannelLoad>,
    /// Deliveries wait in overflow lanes, so slots are kept for them.
    overflow_wants: AtomicBool,
    /// Notified when a slot becomes free: one for the prompt loop, one for the overflow loop.
    pub(super) freed: Arc<[Notify; 2]>,
}

/// Slots of one channel.
struct ChannelLoad {
    most: usize,
    slots: Arc<Semaphore>,
    /// Slots taken by deliveries of prompt lanes, and of overflow lanes.
    by_side: [Arc<AtomicUsize>; 2],
    gauge: IntGauge,
}

/// The slot of one claimed delivery; free again when dropped.
pub(super) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    by_side: Arc<AtomicUsize>,
    gauge: IntGauge,
    freed: Arc<[Notify; 2]>,
}

/// Slots reserved for a claim; those that it did not use are free again when dropped.
pub(super) struct Reserved {
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
        self.by_side.fetch_sub(1, Ordering::Relaxed);
        // Free the slot before the notification: the loop that wakes must see it.
        drop(self.permit.take());
        self.freed.iter().for_each(Notify::notify_one);
    }
}

impl Slots {
    /// Makes the slots of these channels: as many as their providers take calls at once, `in_flight` at most.
    pub(super) fn new(hub: &Hub, channels: &[Channel]) -> Slots {
        let held = |&channel: &Channel| {
            let at_once =
                hub.providers.for_channel(channel).iter().map(|account| account.provider.max_concurrent_calls());
            let most = at_once.fold(0, usize::saturating_add).min(hub.settings.work.in_flight as usize);
            let gauge = hub.metrics.in_flight.with_label_values(&[channel.as_str()]);
            Some((
                channel,
                ChannelLoad { most, slots: Arc::new(Semaphore::new(most)), by_side: Default::default(), gauge },
            ))
        };
        let by_channel = channels.iter().filter_map(held).collect();
        Slots { by_channel, overflow_wants: AtomicBool::new(false), freed: Arc::default() }
    }

    /// Free slots per channel for one loop, `batch` at most. A channel that is nearly full has none until an eighth is
    /// free: claims of one or two rows cost as much as claims of hundreds. A quarter is reserved for prompt lanes, and
    /// an eighth for overflow lanes while deliveries wait there: so neither starves the other at a slow provider.
    pub(super) fn room(&self, batch: i64, overflow: Option<bool>) -> HashMap<Channel, i64> {
        let room = |held: &ChannelLoad| {
            let own = |part: usize| if held.most > 1 { (held.most / part).max(1) } else { 0 };
            let by_side = |side: usize| held.by_side[side].load(Ordering::Relaxed);
            let kept = match overflow {
                Some(true) => own(4).saturating_sub(by_side(0)),
                Some(false) if self.overflow_wants.load(Ordering::Relaxed) => own(8).saturating_sub(by_side(1)),
                _ => 0,
            };
            let free = held.slots.available_permits().saturating_sub(kept);
            if free >= (held.most / 8).max(1) { i64::try_from(free).unwrap_or(i64::MAX).min(batch) } else { 0 }
        };
        self.by_channel.iter().map(|(&channel, held)| (channel, room(held))).filter(|(_, room)| *room > 0).collect()
    }

    /// Notes whether deliveries wait in overflow lanes.
    pub(super) fn overflow_wants(&self, wants: bool) {
        if self.overflow_wants.swap(wants, Ordering::Relaxed) && !wants {
            // The slots kept for overflow lanes are free for prompt lanes.
            self.freed[0].notify_one();
        }
    }

    /// Reserves slots for all that these looks may bring; None if another loop took them first.
    pub(super) fn reserve(&self, looks: &[PlannedClaim], overflow: Option<bool>) -> Option<Reserved> {
        let other = overflow.map(|mine| !mine);
        let mut takes: HashMap<Channel, i64> = HashMap::new();
        looks.iter().for_each(|look| *takes.entry(look.place.1.channel()).or_default() += look.rows);
        let mut reserved = Reserved { by_channel: HashMap::new(), other, freed: self.freed.clone() };
        for (channel, take) in takes {
            let slots = self.by_channel.get(&channel)?.slots.clone();
            let permit = slots.try_acquire_many_owned(u32::try_from(take).ok()?).ok()?;
            reserved.by_channel.insert(channel, permit);
        }
        Some(reserved)
    }

    /// Takes one slot out of a reservation.
    pub(super) fn take(&self, lane: Lane, reserved: &mut Reserved) -> Option<Slot> {
        let held = self.by_channel.get(&lane.channel())?;
        let permit = reserved.by_channel.get_mut(&lane.channel())?.split(1)?;
        held.gauge.inc();
        let by_side = held.by_side[usize::from(lane.is_overflow())].clone();
        by_side.fetch_add(1, Ordering::Relaxed);
        Some(Slot { permit: Some(permit), by_side, gauge: held.gauge.clone(), freed: self.freed.clone() })
    }

    /// Whether no delivery holds a slot.
    pub(super) fn all_free(&self) -> bool {
        self.by_channel.values().all(|held| held.slots.available_permits() == held.most)
    }
}
