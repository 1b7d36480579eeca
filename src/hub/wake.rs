//! Hints that deliveries became ready: in which shard and lane, and since when. Claiming loops of this process take
//! them from here; `worker::hints` sends them to other processes. A hint carries the time, because a row that committed
//! late may lie behind a watermark, and the hint moves the watermark back.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::lock::lock;
use crate::model::lane::Lane;
use crate::model::watermark::{ReadyHints, ShardLane};

/// Hints that the claiming loops of this process, or the other processes, have not taken yet.
#[derive(Default)]
pub struct Wake {
    inboxes: [Inbox; LANE_GROUPS.len()],
    for_others: Mutex<ReadyHints>,
    /// Notified when `take_for_others` has something.
    pub for_others_notify: Notify,
}

impl Wake {
    /// Hints at deliveries that became ready at these places, each since the given time, to the claiming loops here and
    /// in all other processes. Call it after the commit: a loop that looks before the commit finds nothing.
    pub fn notify(&self, places: impl IntoIterator<Item = (ShardLane, DateTime<Utc>)>) {
        let mut ready = ReadyHints::default();
        places.into_iter().for_each(|(place, since)| ready.add(place, since));
        if ready.places.is_empty() {
            return;
        }
        lock(&self.for_others).merge(&ready);
        self.for_others_notify.notify_one();
        self.notify_here(&ready);
    }

    /// Passes a hint of another process to the claiming loops of this one.
    pub fn notify_here(&self, ready: &ReadyHints) {
        for (group, inbox) in LANE_GROUPS.iter().zip(&self.inboxes) {
            let mine = ready.places.iter().filter(|(place, _)| group.contains(place.1));
            let mine = ReadyHints { places: mine.map(|(p, at)| (*p, *at)).collect(), hints_lost: ready.hints_lost };
            if mine.hints_lost || !mine.places.is_empty() {
                lock(&inbox.ready).merge(&mine);
                inbox.notify.notify_one();
            }
        }
    }

    /// Returns the inbox of one claiming loop.
    pub fn inbox(&self, group: LaneGroup) -> &Inbox {
        &self.inboxes[usize::from(group.partner_servers) * 2 + usize::from(group.overflow)]
    }

    /// Wakes all claiming loops, because something that they wait for may have changed.
    pub fn wake_all(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.notify.notify_one());
    }

    /// Takes the hints that were not sent to other processes yet.
    pub fn take_for_others(&self) -> ReadyHints {
        std::mem::take(&mut *lock(&self.for_others))
    }
}

/// The lanes that one claiming loop serves: channels that call partners' endpoints or all other
/// channels; prompt lanes or overflow lanes. Separate loops, so that a claim of hundreds from an overflow lane does not
/// delay a claim of one, and slow endpoints do not delay other channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneGroup {
    pub partner_servers: bool,
    pub overflow: bool,
}

/// All groups, in the order of their inboxes.
const LANE_GROUPS: [LaneGroup; 4] = [
    LaneGroup { partner_servers: false, overflow: false },
    LaneGroup { partner_servers: false, overflow: true },
    LaneGroup { partner_servers: true, overflow: false },
    LaneGroup { partner_servers: true, overflow: true },
];

impl LaneGroup {
    /// Returns whether the loop claims from this lane.
    pub fn contains(self, lane: Lane) -> bool {
        lane.channel().calls_partner_servers() == self.partner_servers && lane.is_overflow() == self.overflow
    }
}

/// Hints for one claiming loop.
#[derive(Default)]
pub struct Inbox {
    ready: Mutex<ReadyHints>,
    /// Notified when a hint arrives.
    pub notify: Notify,
}

impl Inbox {
    /// Takes the hints that arrived since the last call.
    pub fn take(&self) -> ReadyHints {
        std::mem::take(&mut *lock(&self.ready))
    }
}
