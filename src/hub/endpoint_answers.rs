//! What endpoints answered this process since it was last written.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::model::endpoint::AnswerSummary;

/// By endpoint, its answers since they were last taken.
#[derive(Default)]
pub struct EndpointAnswers(Mutex<HashMap<Tsid, AnswerSummary>>);

impl EndpointAnswers {
    /// Notes one answer of an endpoint, or the lack of one.
    pub fn note(&self, endpoint_id: Tsid, succeeded: bool, at: DateTime<Utc>) {
        lock(&self.0).entry(endpoint_id).or_default().add(succeeded, at);
    }

    /// Takes all that was noted, to be written. Sorted by endpoint: two processes that write theirs never wait for each
    /// other in a ring.
    pub fn take(&self) -> Vec<(Tsid, AnswerSummary)> {
        let mut all: Vec<_> = std::mem::take(&mut *lock(&self.0)).into_iter().collect();
        all.sort_by_key(|(endpoint_id, _)| *endpoint_id);
        all
    }

    /// Puts back answers that could not be written, before those that came since.
    pub fn put_back(&self, unwritten: Vec<(Tsid, AnswerSummary)>) {
        let mut all = lock(&self.0);
        for (endpoint_id, before) in unwritten {
            let since = all.entry(endpoint_id).or_default();
            *since = before.then(*since);
        }
    }
}
