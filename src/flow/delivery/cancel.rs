//! Cancel: what no worker holds ends at once; what one holds is marked, and ends canceled if no provider takes it
//! now; nothing takes the place of what was sent.

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::CancelPermit;
use crate::model::delivery::{Outcome, Status};
use crate::store::{self, audit::AuditEntry, delivery::DeliveryRow};

use super::settle::end_waiting;

/// Cancels a message of the permit's partner as far as it was not sent yet. Returns all deliveries of the message as they
/// stand afterwards.
///
/// # Errors
/// `Error::NotFound` if the partner has no such message. `Error::Unavailable` if the database cannot be reached; some of
/// the deliveries may be canceled then.
pub async fn cancel(hub: &Hub, permit: CancelPermit<'_>, message_id: Tsid) -> Result<Vec<DeliveryRow>> {
    let (actor, partner) = (permit.actor(), permit.partner());
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    if actor.principal.is_audited() {
        // Before its effects: however it ends, it is in the log.
        let deed = AuditEntry {
            action: "message.cancel".into(),
            object: Some(message_id.to_string()),
            partner_id: Some(id),
            ..AuditEntry::default()
        };
        store::audit::insert(db, hub.next_id(), hub.clock.now(), actor, &deed).await?;
    }
    // A delivery may be claimed or promoted between looking and writing; the fence then holds, and we look again.
    for _ in 0..5 {
        // First: what is seen afterwards has nothing taking its place.
        store::delivery::request_cancel(db, id, shard, message_id).await?;
        let open = store::delivery::unsettled(db, id, shard, message_id).await?;
        let (held, free): (Vec<_>, Vec<_>) = open.into_iter().partition(|w| w.head.status == Status::Processing);
        let free_count = free.len();
        let ended = end_waiting(hub, free, &Outcome::Canceled).await?;
        if ended == free_count && held.iter().all(|w| w.head.cancel_requested) {
            break;
        }
    }
    let rows = store::delivery::of_message(db, id, shard, message_id, None).await?;
    if rows.is_empty() { Err(Error::NotFound) } else { Ok(rows) }
}
