//! When the log last named a refused callback of each provider: anybody can send one, and so could fill the log.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::limits;

/// By provider, when a refused callback of it was last logged.
#[derive(Default)]
pub struct RefusedCallbacks(Mutex<HashMap<String, DateTime<Utc>>>);

impl RefusedCallbacks {
    /// Whether a refused callback at `now` is to be logged; true at most once in `limits::REFUSED_TOLD_EVERY` for each
    /// provider. `provider` is one of ours, so the names are few.
    pub fn may_log(&self, provider: &str, now: DateTime<Utc>) -> bool {
        let mut logged = lock(&self.0);
        let may = logged.get(provider).is_none_or(|at| now - *at >= limits::REFUSED_TOLD_EVERY);
        if may {
            logged.insert(provider.to_owned(), now);
        }
        may
    }
}
