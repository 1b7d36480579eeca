//! Hints of what just became ready, where, and since when: for the workers of this process, and through the loop that
//! tells other processes for all others. The time matters: what was committed late lies behind a watermark, and the
//! hint moves that back.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::lock::lock;
use crate::model::lane::Lane;
use crate::model::watermark::{Place, Ready};

/// Hints of this process that its claiming loops and the other processes have not taken yet.
#[derive(Default)]
pub struct Wake {
    inboxes: [Inbox; SHARES.len()],
    elsewhere: Mutex<Ready>,
    /// Notified when `take_elsewhere` has something.
    pub elsewhere_notify: Notify,
}

impl Wake {
    /// Hints at deliveries that became ready at these places, each since the given time, here and in all other
    /// processes. Called after the commit, never before.
    pub fn ready(&self, places: impl IntoIterator<Item = (Place, DateTime<Utc>)>) {
        let mut ready = Ready::default();
        places.into_iter().for_each(|(place, since)| ready.add(place, since));
        if ready.places.is_empty() {
            return;
        }
        lock(&self.elsewhere).take_in(&ready);
        self.elsewhere_notify.notify_one();
        self.heard(&ready);
    }

    /// Passes a hint of another process on to the claiming loops of this one.
    pub fn heard(&self, ready: &Ready) {
        for (share, inbox) in SHARES.iter().zip(&self.inboxes) {
            let mine = ready.places.iter().filter(|(place, _)| share.has(place.1));
            let mine = Ready { places: mine.map(|(p, at)| (*p, *at)).collect(), anywhere: ready.anywhere };
            if mine.anywhere || !mine.places.is_empty() {
                lock(&inbox.ready).take_in(&mine);
                inbox.notify.notify_one();
            }
        }
    }

    /// The hints that concern the lanes of one claiming loop.
    pub fn inbox(&self, share: Share) -> &Inbox {
        &self.inboxes[usize::from(share.strangers) * 2 + usize::from(share.overflow)]
    }

    /// Wakes all claiming loops: something that they wait for may have changed.
    pub fn look_again(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.notify.notify_one());
    }

    /// Takes the hints that other processes were not given yet.
    pub fn take_elsewhere(&self) -> Ready {
        std::mem::take(&mut *lock(&self.elsewhere))
    }
}

/// The lanes that one claiming loop takes from: of channels that call strangers or of all others, prompt or overflow.
/// So a claim of hundreds out of a flood holds up no claim of one, and strangers' endpoints hold up no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub strangers: bool,
    pub overflow: bool,
}

/// In the order of their inboxes.
const SHARES: [Share; 4] = [
    Share { strangers: false, overflow: false },
    Share { strangers: false, overflow: true },
    Share { strangers: true, overflow: false },
    Share { strangers: true, overflow: true },
];

impl Share {
    /// Whether the loop takes from this lane.
    pub fn has(self, lane: Lane) -> bool {
        lane.channel().calls_strangers() == self.strangers && lane.is_overflow() == self.overflow
    }
}

/// The hints for one claiming loop.
#[derive(Default)]
pub struct Inbox {
    ready: Mutex<Ready>,
    /// Notified when a hint arrives.
    pub notify: Notify,
}

impl Inbox {
    /// Takes the hints that arrived since the last call.
    pub fn take(&self) -> Ready {
        std::mem::take(&mut *lock(&self.ready))
    }
}
