//! Values that belong to the current request and are available everywhere in its task.

use std::cell::Cell;

use chrono::{DateTime, Utc};

use crate::flow::rate::RateStatus;

tokio::task_local! {
    /// The request's id, for its answer, its problem and the log.
    pub static REQUEST_ID: String;
    /// For a request below `/api/`, when it arrived: its problem has the members of the envelope.
    pub static ENVELOPED_AT: Option<DateTime<Utc>>;
    /// The state of the caller's rate limit once the request was counted; the answer's `RateLimit-*` headers show it.
    pub static RATE_STATUS: Cell<Option<RateStatus>>;
}
