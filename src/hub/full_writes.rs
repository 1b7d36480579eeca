//! Partners whose messages need the full statements of insert and settle, as this process last saw them.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;

/// Partners seen with endpoints or erased keys, each with the time until which it counts as one. It only chooses the
/// statement that is tried first: a partner that is missing, or that lost its last endpoint, costs a statement more.
#[derive(Default)]
pub struct FullWrites(Mutex<HashMap<Tsid, DateTime<Utc>>>);

impl FullWrites {
    /// Whether one of these partners is known to need the full statements.
    pub fn is_needed(&self, partners: impl IntoIterator<Item = Tsid>, now: DateTime<Utc>) -> bool {
        let known = lock(&self.0);
        !known.is_empty() && partners.into_iter().any(|id| known.get(&id).is_some_and(|until| *until > now))
    }

    /// Notes partners that need them for the next `limits::FULL_WRITES_KNOWN`, and forgets those whose time is over.
    pub fn note(&self, partners: impl IntoIterator<Item = Tsid>, now: DateTime<Utc>) {
        let mut known = lock(&self.0);
        known.retain(|_, until| *until > now);
        known.extend(partners.into_iter().map(|id| (id, now + limits::FULL_WRITES_KNOWN)));
    }
}
