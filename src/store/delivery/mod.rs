//! Deliveries: the queue's few statements, and what people ask.

/// The law's view of a row. `$status` and `$cancel` are given where the statement does not return them.
macro_rules! head {
    ($r:expr, $status:expr, $cancel:expr) => {
        crate::model::delivery::Head {
            status: $status,
            channel: Lane($r.lane).channel(),
            attempt: $r.attempt,
            max_attempts: $r.max_attempts,
            possibly_sent: $r.possibly_sent,
            cancel_requested: $cancel,
            expires_at: $r.expires_at,
            has_fallback: $r.has_fallback,
        }
    };
}

mod fallback;
mod list;
mod queue;
mod receipt;
mod settle;
mod webhook;

pub use fallback::{Origin, ReadUpTo, StandIn, fall_back, origins, standing_by};
pub use list::{Addressed, Filter, Row, Window, contents, hide, list, of_message, scrub, seen};
pub use queue::{
    Ask, Claimed, Overdue, SweepPosition, Swept, Waiting, claim, extend, lock, open, overdue, promote, request_cancel,
    worthless,
};
pub use receipt::{Found, Lifted, Moved, Receive, await_receipts, due, evidence, heads, receive};
pub use settle::{Apart, Redriven, Settle, Tried, Won, redrive, settle};
pub use webhook::{
    Along, Call, Hastened, Notice, OpenWebhook, Sequence, SequencePosition, Webhook, WebhookFilter, about, fill_about,
    hasten, of_endpoint, release, release_next, sequences, stalled, waiting,
};
