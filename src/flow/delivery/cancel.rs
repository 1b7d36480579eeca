//! Cancel: deliveries that no worker holds end at once. Those that a worker holds are marked, and end canceled unless
//! the provider accepts them. A canceled delivery has no fallback.

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::CancelPermit;
use crate::model::delivery::{Outcome, Status};
use crate::store::{self, audit::AuditEntry, delivery::DeliveryRow};

use super::settle::end_waiting;

/// Cancels the deliveries of a message of the permit's partner that were not sent yet. Returns all deliveries of the
/// message as they are afterwards. An audited caller gets an entry in the audit log before anything else is written.
///
/// # Errors
/// `Error::NotFound` if the partner has no such message. `Error::Unavailable` if the database fails; some of the
/// deliveries may be canceled then.
pub async fn cancel(hub: &Hub, permit: CancelPermit<'_>, message_id: Tsid) -> Result<Vec<DeliveryRow>> {
    let (actor, partner) = (permit.actor(), permit.partner());
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    if actor.principal.is_audited() {
        // Before its effects, so that the log has it however it ends.
        let entry = AuditEntry {
            action: "message.cancel".into(),
            object: Some(message_id.to_string()),
            partner_id: Some(id),
            ..AuditEntry::default()
        };
        store::audit::insert(db, hub.next_id(), hub.clock.now(), actor, &entry).await?;
    }
    // A delivery may be claimed or promoted between the query and the write; the fence then rejects the write, and the
    // loop looks again.
    for _ in 0..5 {
        // First, so that no fallback is made for the deliveries that are read next.
        store::delivery::request_cancel(db, id, shard, message_id).await?;
        let unsettled = store::delivery::unsettled(db, id, shard, message_id).await?;
        let (held, waiting): (Vec<_>, Vec<_>) =
            unsettled.into_iter().partition(|w| w.head.status == Status::Processing);
        let waiting_count = waiting.len();
        let ended = end_waiting(hub, waiting, &Outcome::Canceled).await?;
        if ended == waiting_count && held.iter().all(|w| w.head.cancel_requested) {
            break;
        }
    }
    let rows = store::delivery::of_message(db, id, shard, message_id, None).await?;
    if rows.is_empty() { Err(Error::NotFound) } else { Ok(rows) }
}
