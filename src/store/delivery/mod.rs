//! Deliveries: the queue's few statements, and what people ask.

/// The law's view of a row. `$status` and `$cancel` are given where the statement does not return them.
macro_rules! head {
    ($r:expr, $status:expr, $cancel:expr) => {
        crate::model::delivery::DeliveryFacts {
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
pub use list::{
    Addressed, DeliveryRow, Filter, Window, contents, list, of_message, redact_answers, redact_recipients, visible,
};
pub use queue::{
    Ask, Claimed, Overdue, SweepPosition, Swept, Waiting, claim, extend, lock, overdue, promote, request_cancel,
    unsettled, worthless,
};
pub use receipt::{
    DeliveryHead, Lifted, Moved, Receive, apply_late_acceptances, apply_receipts, await_receipts, due, heads,
};
pub use settle::{Apart, Redriven, Settle, Tried, Won, redrive, settle};
pub use webhook::{
    Along, Call, Hastened, OpenWebhook, Sequence, SequencePosition, Webhook, WebhookFilter, WebhookMessage,
    count_retrying, fill_about, hasten, of_endpoint, release, release_next, sequences, stalled, webhooks_of_message,
};
