//! What a request carries along, from the layer around all handlers to wherever in its task it is needed.

use std::cell::Cell;

use crate::flow::rate::RateStatus;

tokio::task_local! {
    /// Names the request, in its answer, its problem and our log.
    pub static REQUEST_ID: String;
    /// How the caller stands with its limit, once it was counted; the answer's headers tell it.
    pub static RATE_STATUS: Cell<Option<RateStatus>>;
}
