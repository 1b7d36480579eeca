//! Paces of single destinations, as this process knows them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use tokio::sync::OwnedMutexGuard;

use super::lock::lock;
use crate::model::delivery::{Outcome, REASON_DESTINATION_FAILING, REASON_DESTINATION_PACED};
use crate::model::pace::{FAILURES_TO_TROUBLED, Pace};

/// Destinations that have a pace, and the recent answers of those that have none.
#[derive(Default)]
pub struct Paces {
    /// Whether any destination has a pace. A message costs one read of this flag while none has.
    any: AtomicBool,
    known: Mutex<HashMap<Destination, KnownPace>>,
    /// Recent answers of chat destinations that do not fail repeatedly. Two levels, provider and destination, so that a
    /// good answer allocates nothing.
    answers: Mutex<HashMap<String, HashMap<String, RecentAnswers>>>,
    /// Locks of the destinations that take one request at a time.
    locks: Mutex<HashMap<Destination, Arc<tokio::sync::Mutex<()>>>>,
}

/// Names of the provider and the destination.
pub type Destination = (String, String);

struct KnownPace {
    pace: Pace,
    /// The time given to the next message that has to wait.
    slot: Option<DateTime<Utc>>,
}

/// Recent answers of a chat destination to this process.
#[derive(Default)]
struct RecentAnswers {
    failures_in_a_row: u32,
    good_at: Option<DateTime<Utc>>,
}

/// Held while a request to a destination is made; None where the destination takes several at once.
pub type DestinationLock = Option<OwnedMutexGuard<()>>;

impl Paces {
    /// Whether any destination has a pace.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Checks whether a message to this destination may be sent at `now`.
    ///
    /// # Errors
    /// The outcome to settle instead: deferred to the next free slot of the destination. The slot is used up.
    pub fn check(&self, place: &Destination, now: DateTime<Utc>) -> Result<(), Outcome> {
        let mut known = lock(&self.known);
        match known.get_mut(place) {
            Some(known) if known.pace.next_at > now => {
                let (slot, next) = known.pace.next_slot(known.slot, now);
                known.slot = Some(next);
                Err(Outcome::deferred(
                    slot,
                    if known.pace.failures > 0 { REASON_DESTINATION_FAILING } else { REASON_DESTINATION_PACED },
                ))
            }
            _ => Ok(()),
        }
    }

    /// Returns whether this destination has a pace.
    pub fn has(&self, place: &Destination) -> bool {
        lock(&self.known).contains_key(place)
    }

    /// Sets the pace of a destination.
    pub fn set(&self, place: Destination, pace: Pace) {
        let mut known = lock(&self.known);
        known.entry(place).or_insert(KnownPace { pace, slot: None }).pace = pace;
        self.any.store(true, Ordering::Relaxed);
    }

    /// Returns how many failures the pace of a destination counts; 0 if it has none.
    pub fn failures(&self, place: &Destination) -> i16 {
        let known = lock(&self.known);
        known.get(place).map_or(0, |known| known.pace.failures)
    }

    /// Counts a failure of a destination that has no pace for failing. Returns true at the `FAILURES_TO_TROUBLED`th
    /// failure in a row; the count then begins again. `called_at` is when the call began: a call made before the last
    /// good answer is not counted, because the destination worked after it.
    pub fn record_failure(&self, place: &Destination, called_at: DateTime<Utc>) -> bool {
        let mut answers = lock(&self.answers);
        let answers = answers.entry(place.0.clone()).or_default().entry(place.1.clone()).or_default();
        if answers.good_at.is_some_and(|good_at| called_at <= good_at) {
            return false;
        }
        answers.failures_in_a_row += 1;
        answers.failures_in_a_row >= FAILURES_TO_TROUBLED && std::mem::take(&mut answers.failures_in_a_row) > 0
    }

    /// Records a good answer at `now`, which ends the row of failures.
    pub fn record_success(&self, provider: &str, destination: &str, now: DateTime<Utc>) {
        let good = RecentAnswers { failures_in_a_row: 0, good_at: Some(now) };
        let mut answers = lock(&self.answers);
        match answers.get_mut(provider).and_then(|of| of.get_mut(destination)) {
            Some(answers) => *answers = good,
            None => {
                answers.entry(provider.to_owned()).or_default().insert(destination.to_owned(), good);
            }
        }
    }

    /// Returns the lock of a destination that takes one request at a time.
    pub fn lock_of(&self, place: &Destination) -> Arc<tokio::sync::Mutex<()>> {
        let mut lines = lock(&self.locks);
        lines.entry(place.clone()).or_default().clone()
    }

    /// Replaces the known paces by those read from the database at `now`. Paces that were set while it was read, and
    /// lie ahead of `now`, stay.
    pub fn replace(&self, read: impl IntoIterator<Item = (Destination, Pace)>, now: DateTime<Utc>) {
        let mut known = lock(&self.known);
        let mut before = std::mem::take(&mut *known);
        for (place, pace) in read {
            let slot = before.remove(&place).and_then(|before| before.slot);
            known.insert(place, KnownPace { pace, slot });
        }
        known.extend(before.into_iter().filter(|(_, learnt)| learnt.pace.next_at > now));
        self.any.store(!known.is_empty(), Ordering::Relaxed);
    }
}
