//! Channels: what a channel needs beyond the call of a provider. The engine (`flow::delivery`) and the workers name no
//! channel: they call the functions here, which decide by one `match` over `Channel` (`needs`). A channel with needs
//! has a module of its own; any other costs a comparison.
//!
//! `prepare` resolves the destination and renders the body before the call; `acquire` takes a permit for one request to
//! the destination; `deliver_here` takes the place of the call where the hub itself is the destination;
//! `after_answer` acts on what the answer says about the destination. Deliveries may wait behind
//! others to the same destination: `followers` counts how many may go when one ends, and `release_next` makes them
//! PENDING.
//!
//! Listed in groups, as in `flow`: a module names only modules of the groups above its own.

// The health of endpoints, and the order of webhooks to endpoints that ask for it.
pub mod endpoint_health;
pub mod webhook_order;

// The channels that have needs.
mod in_app;
pub mod webhook;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::{DeliveryKey, Outcome};
use crate::provider::Extra;
use crate::store::delivery::ClaimedDelivery;
use crate::store::message::StoredMessage;

pub use endpoint_health::note_answers;
pub use webhook_order::{StalledCursor, release_next, restart_stalled};

/// What the deliveries of a channel need beyond the call of its provider.
enum Needs {
    Nothing,
    /// The hub's own database takes the delivery, in place of a provider.
    Inbox,
    /// A partner's endpoint: its URL and secrets, the body of the event, the order of events, and a limit of concurrent
    /// calls.
    Endpoint,
}

fn needs(channel: Channel) -> Needs {
    match channel {
        Channel::Email
        | Channel::Slack
        | Channel::Sms
        | Channel::Lms
        | Channel::Mms
        | Channel::KakaoAlimtalk
        | Channel::KakaoBrandMessage
        | Channel::NaverTalk
        | Channel::Rcs
        | Channel::Push => Needs::Nothing,
        Channel::Inapp => Needs::Inbox,
        Channel::Webhook => Needs::Endpoint,
    }
}

/// What a channel prepared for one delivery. Boxed, because the task of every delivery is as large as this enum.
pub enum Preparation {
    /// The channel has no needs.
    Nothing,
    /// A webhook to a partner's endpoint.
    Webhook(Box<webhook::PreparedWebhook>),
}

impl Preparation {
    /// Returns its part of the request to the provider.
    pub fn extra(&self) -> Extra<'_> {
        match self {
            Preparation::Nothing => Extra::Nothing,
            Preparation::Webhook(ready) => Extra::Webhook(&ready.request),
        }
    }
}

/// What channels prepared for deliveries that were claimed together.
#[derive(Default)]
pub struct Prepared {
    webhooks: HashMap<DeliveryKey, Result<webhook::PreparedWebhook, Outcome>>,
}

impl Prepared {
    /// Takes the preparation of a delivery; call it once per delivery.
    ///
    /// # Errors
    /// The outcome to settle instead of a call.
    pub fn take(&mut self, claimed: &ClaimedDelivery) -> Result<Preparation, Outcome> {
        match needs(claimed.head.channel) {
            Needs::Nothing | Needs::Inbox => Ok(Preparation::Nothing),
            Needs::Endpoint => match self.webhooks.remove(&claimed.key) {
                Some(ready) => ready.map(|ready| Preparation::Webhook(Box::new(ready))),
                // Its endpoint could not be read: the next claim reads it.
                None => Err(Outcome::Postponed),
            },
        }
    }
}

/// Prepares deliveries that were claimed together, in a number of statements that does not grow with them. `contents`
/// holds the contents by message; a delivery without content is left out. Never fails: a delivery that could not be
/// prepared is postponed by `Prepared::take`.
pub async fn prepare(
    hub: &Hub,
    claimed: &[ClaimedDelivery],
    contents: &HashMap<Tsid, Option<Arc<StoredMessage>>>,
) -> Prepared {
    let content = |c: &ClaimedDelivery| contents.get(&c.key.message_id).and_then(Option::as_deref);
    let to_endpoints = claimed.iter().filter(|c| matches!(needs(c.head.channel), Needs::Endpoint));
    let to_endpoints: Vec<(&ClaimedDelivery, &StoredMessage)> =
        to_endpoints.filter_map(|c| Some((c, content(c)?))).collect();
    if to_endpoints.is_empty() {
        return Prepared::default();
    }
    let webhooks = webhook::prepare(hub, &to_endpoints).await.unwrap_or_else(|e| {
        let deliveries = to_endpoints.len();
        tracing::warn!(
            error = %e, deliveries,
            "the endpoints of claimed webhooks could not be read; the webhooks are postponed"
        );
        HashMap::new()
    });
    Prepared { webhooks }
}

/// Returns whether the hub itself takes the deliveries of this channel: `deliver_here` in place of the provider's call.
pub fn ends_here(channel: Channel) -> bool {
    match needs(channel) {
        Needs::Inbox => true,
        Needs::Nothing | Needs::Endpoint => false,
    }
}

/// Delivers claimed deliveries of one channel of which `ends_here` is true. Returns one outcome for each, in their
/// order.
pub async fn deliver_here(hub: &Hub, deliveries: &[(&ClaimedDelivery, &StoredMessage)]) -> Vec<Outcome> {
    in_app::put(hub, deliveries).await
}

/// Permit for one request to the destination, held until the outcome is known. Freed when dropped.
pub enum DestinationPermit {
    /// The channel needs none.
    Free,
    /// One of the concurrent calls to an endpoint.
    Webhook(webhook::EndpointReservation),
}

impl DestinationPermit {
    /// Records the outcome of the request, which widens or narrows the number of concurrent calls.
    pub fn record_outcome(&mut self, outcome: &Outcome) {
        match self {
            DestinationPermit::Free => (),
            DestinationPermit::Webhook(reservation) => reservation.record_outcome(outcome),
        }
    }
}

/// Acquires the permit for one request to the destination, waiting at most until `until`.
///
/// # Errors
/// The outcome to settle instead: the permit is not available in time.
pub async fn acquire(hub: &Hub, preparation: &mut Preparation, until: Instant) -> Result<DestinationPermit, Outcome> {
    match preparation {
        Preparation::Nothing => Ok(DestinationPermit::Free),
        Preparation::Webhook(ready) => {
            Box::pin(webhook::EndpointReservation::open(hub, ready, until)).await.map(DestinationPermit::Webhook)
        }
    }
}

/// Acts on what the answer says about the destination. Call it before the outcome is settled.
pub async fn after_answer(hub: &Hub, preparation: &Preparation, outcome: &Outcome) {
    match preparation {
        Preparation::Nothing => (),
        Preparation::Webhook(ready) => webhook::after(hub, ready, outcome).await,
    }
}

/// Returns how many deliveries that wait behind this one may go at once when it ends; 0 if none can wait behind it.
/// `preparation` is None for a delivery that was not prepared.
pub fn followers(hub: &Hub, claimed: &ClaimedDelivery, preparation: Option<&Preparation>) -> i64 {
    match (needs(claimed.head.channel), preparation) {
        (Needs::Nothing | Needs::Inbox, _) => 0,
        (Needs::Endpoint, Some(Preparation::Webhook(ready))) if !ready.in_order => 0,
        (Needs::Endpoint, _) => webhook_order::followers(hub, claimed),
    }
}

/// Like `followers`, for a delivery that this process does not hold: 1 where others may wait behind it, otherwise 0.
pub fn followers_unprepared(channel: Channel) -> i64 {
    match needs(channel) {
        Needs::Nothing | Needs::Inbox => 0,
        Needs::Endpoint => 1,
    }
}

/// Returns how many suspects of a channel are called at the same time, each in a request of its own.
pub fn suspects_at_once(channel: Channel) -> usize {
    match needs(channel) {
        Needs::Nothing | Needs::Inbox => 1,
        Needs::Endpoint => limits::SUSPECT_WEBHOOKS,
    }
}
