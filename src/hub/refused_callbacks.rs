//! Throttle of the log lines about refused callbacks: anyone can send a callback, and so could fill the log.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::limits;

/// By provider, the time of the last log line about a refused callback.
#[derive(Default)]
pub struct RefusedCallbacks(Mutex<HashMap<String, DateTime<Utc>>>);

impl RefusedCallbacks {
    /// Returns whether to log a callback refused at `now`: at most one per `limits::REFUSED_CALLBACK_LOG_EVERY` and
    /// provider. `provider` must be a configured name, so that the map stays small.
    pub fn may_log(&self, provider: &str, now: DateTime<Utc>) -> bool {
        let mut logged = lock(&self.0);
        let may = logged.get(provider).is_none_or(|at| now - *at >= limits::REFUSED_CALLBACK_LOG_EVERY);
        if may {
            logged.insert(provider.to_owned(), now);
        }
        may
    }
}
