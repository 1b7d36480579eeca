//! Results of the calls that this process made to endpoints and has not written yet (`flow::channel::note_answers`).

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::model::endpoint::AnswerSummary;

/// By endpoint, the answers since they were last taken.
#[derive(Default)]
pub struct EndpointAnswers(Mutex<HashMap<Tsid, AnswerSummary>>);

impl EndpointAnswers {
    /// Counts one call to an endpoint as succeeded or failed; no answer is a failure.
    pub fn note(&self, endpoint_id: Tsid, succeeded: bool, at: DateTime<Utc>) {
        lock(&self.0).entry(endpoint_id).or_default().add(succeeded, at);
    }

    /// Takes all counts, so that the caller writes them. Sorted by endpoint, so that two processes that write theirs
    /// lock the rows in the same order and cannot deadlock.
    pub fn take(&self) -> Vec<(Tsid, AnswerSummary)> {
        let mut all: Vec<_> = std::mem::take(&mut *lock(&self.0)).into_iter().collect();
        all.sort_by_key(|(endpoint_id, _)| *endpoint_id);
        all
    }

    /// Puts back counts that could not be written, before those that came since.
    pub fn put_back(&self, unwritten: Vec<(Tsid, AnswerSummary)>) {
        let mut all = lock(&self.0);
        for (endpoint_id, before) in unwritten {
            let since = all.entry(endpoint_id).or_default();
            *since = before.followed_by(*since);
        }
    }
}
