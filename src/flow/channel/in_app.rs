//! INAPP: the call of a delivery is a statement that puts the item into the user's inbox (`flow::inbox`).

use crate::flow::inbox::{self, Arrival};
use crate::hub::Hub;
use crate::model::delivery::Outcome;
use crate::store::delivery::ClaimedDelivery;
use crate::store::message::StoredMessage;

/// Puts claimed deliveries into inboxes. Returns one outcome for each, in their order.
pub(super) async fn put(hub: &Hub, deliveries: &[(&ClaimedDelivery, &StoredMessage)]) -> Vec<Outcome> {
    let arrival = |(claimed, message): &(&ClaimedDelivery, &StoredMessage)| Arrival {
        key: claimed.key,
        partner_id: message.partner_id,
        recipient: claimed.recipient.clone(),
        content: claimed.content,
        expires_at: claimed.head.expires_at,
    };
    let arrivals: Vec<Arrival> = deliveries.iter().map(arrival).collect();
    let (task_hub, count) = (hub.clone(), arrivals.len());
    // A task of its own: the caller drops this future when its time is up, and a statement must not be dropped
    // half-way.
    let put = hub.shutdown.spawn(async move { inbox::put(&task_hub, &arrivals).await });
    put.await.unwrap_or_else(|panic| {
        let detail = format!("the task that puts items ended early: {panic}");
        vec![Outcome::Unknown { code: "inbox_unanswered", detail }; count]
    })
}
