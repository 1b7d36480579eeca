//! Deliveries: the queue's statements, and the reads that the API needs.

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

pub use fallback::{
    LanePosition, NewFallback, ReplaceableDelivery, insert_fallbacks, lock_pending_with_fallback, lock_replaceable,
};
pub use list::{
    DeliveryFilter, DeliveryPage, DeliveryRecipient, DeliveryRow, FormerName, list, of_message, of_names, recipients,
    redact_answers, redact_recipients, visible,
};
pub use queue::{
    ClaimRequest, ClaimedDelivery, ExpiredLease, SweepPosition, SweptSlice, UnsettledDelivery, claim, expired_pending,
    extend_lease, lock, lock_expired_leases, promote, request_cancel, unsettled,
};
pub use receipt::{
    DeliveryHead, LateAcceptance, ReceiptUpdate, UpdatedDelivery, apply_late_acceptances, apply_receipts,
    lock_for_receipts, lock_receipt_overdue, set_receipt_due,
};
pub use settle::{EndedAttempt, RedrivenDelivery, Settle, SettledStep, SuspectEntry, redrive, settle, settle_sends};
pub use webhook::{
    EndpointPosition, OpenWebhook, RetriedNow, Sequence, SequencePosition, WebhookCall, WebhookFilter, WebhookMessage,
    WebhookRow, backfill_about, count_retrying, of_endpoint, release, release_next, retry_now, sequences, stalled,
    webhooks_of_message,
};
