//! What this process knows of what single destinations take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use tokio::sync::OwnedMutexGuard;

use super::lock::lock;
use crate::model::delivery::{FAILING, Outcome, PACED};
use crate::model::pace::{IN_A_ROW, Pace};

#[derive(Default)]
pub struct Paces {
    /// Whether there is one: all that a message costs where there is none.
    any: AtomicBool,
    known: Mutex<HashMap<Place, Known>>,
    /// What the destinations of a chat answered of late that do not fail again and again; by provider and destination, so
    /// that a good answer allocates nothing.
    answers: Mutex<HashMap<String, HashMap<String, Answers>>>,
    /// Who is called by one request at a time.
    lines: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

/// Provider and destination.
pub type Place = (String, String);

struct Known {
    pace: Pace,
    /// When the next one that has to wait may come.
    slot: Option<DateTime<Utc>>,
}

/// A chat's destination, as one process sees it.
#[derive(Default)]
struct Answers {
    failures_in_a_row: u32,
    good_at: Option<DateTime<Utc>>,
}

/// Held while a request to a destination is made.
pub type Line = Option<OwnedMutexGuard<()>>;

impl Paces {
    /// Whether any destination has a pace.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Why a message to this destination is not sent now, if so: it has to wait for its slot.
    pub fn stands(&self, place: &Place, now: DateTime<Utc>) -> Result<(), Outcome> {
        let mut known = lock(&self.known);
        match known.get_mut(place) {
            Some(known) if known.pace.next_at > now => {
                let (slot, next) = known.pace.slot(known.slot, now);
                known.slot = Some(next);
                Err(Outcome::deferred(slot, if known.pace.failures > 0 { FAILING } else { PACED }))
            }
            _ => Ok(()),
        }
    }

    pub fn knows(&self, place: &Place) -> bool {
        lock(&self.known).contains_key(place)
    }

    pub fn learn(&self, place: Place, pace: Pace) {
        let mut known = lock(&self.known);
        known.entry(place).or_insert(Known { pace, slot: None }).pace = pace;
        self.any.store(true, Ordering::Relaxed);
    }

    /// For how often a destination was seen to fail while in trouble.
    pub fn troubles(&self, place: &Place) -> i16 {
        let known = lock(&self.known);
        known.get(place).map_or(0, |known| known.pace.failures)
    }

    /// One more failure of a destination that did not fail again and again before; whether it does from now on. A call
    /// that was made before the last good answer says nothing: the destination worked after it.
    pub fn fails(&self, place: &Place, called_at: DateTime<Utc>) -> bool {
        let mut answers = lock(&self.answers);
        let answers = answers.entry(place.0.clone()).or_default().entry(place.1.clone()).or_default();
        if answers.good_at.is_some_and(|good_at| called_at <= good_at) {
            return false;
        }
        answers.failures_in_a_row += 1;
        answers.failures_in_a_row >= IN_A_ROW && std::mem::take(&mut answers.failures_in_a_row) > 0
    }

    pub fn works(&self, provider: &str, destination: &str, now: DateTime<Utc>) {
        let good = Answers { failures_in_a_row: 0, good_at: Some(now) };
        let mut answers = lock(&self.answers);
        match answers.get_mut(provider).and_then(|of| of.get_mut(destination)) {
            Some(answers) => *answers = good,
            None => {
                answers.entry(provider.to_owned()).or_default().insert(destination.to_owned(), good);
            }
        }
    }

    pub fn line(&self, place: &Place) -> Arc<tokio::sync::Mutex<()>> {
        let mut lines = lock(&self.lines);
        lines.entry(place.clone()).or_default().clone()
    }

    /// What all processes know, as it was read at `now`, in the place of what was known; what was learnt while it was
    /// read stays.
    pub fn replace(&self, read: impl IntoIterator<Item = (Place, Pace)>, now: DateTime<Utc>) {
        let mut known = lock(&self.known);
        let mut before = std::mem::take(&mut *known);
        for (place, pace) in read {
            let slot = before.remove(&place).and_then(|before| before.slot);
            known.insert(place, Known { pace, slot });
        }
        known.extend(before.into_iter().filter(|(_, learnt)| learnt.pace.next_at > now));
        self.any.store(!known.is_empty(), Ordering::Relaxed);
    }
}
