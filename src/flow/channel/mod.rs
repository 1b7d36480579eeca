//! Channels: what a channel adds to the call of a provider. The engine (`flow::delivery`) and the workers name no
//! channel: they call the functions here, which go by one `match` over `Channel` (`needs`). A channel that adds
//! something has a module of its own; one that adds nothing costs a comparison.
//!
//! `prepare` resolves before the call whom to call and renders what to send; `enter` takes a place at the destination
//! for one request; `after` draws from the answer what it says of the destination. Deliveries may wait behind others of
//! their destination: `followers` counts how many one of them lets go when it ends, and `release_next` lets them go.
//!
//! Listed in groups, as in `flow`: a module names only modules of the groups above its own.

// What an endpoint's answers say of it, and whose turn it is at one that asks for order.
pub mod endpoint_health;
pub mod webhook_order;

// The channels that add something.
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
    /// A partner's endpoint: its URL and secrets, the event's body, its turn, and a place among the calls to it.
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
        | Channel::Push
        | Channel::Inapp => Needs::Nothing,
        Channel::Webhook => Needs::Endpoint,
    }
}

/// What a channel adds to one delivery. Boxed, for every delivery's task is as large as what it may hold.
pub enum Preparation {
    Nothing,
    Webhook(Box<webhook::PreparedWebhook>),
}

impl Preparation {
    /// What it adds to the request to the provider.
    pub fn extra(&self) -> Extra<'_> {
        match self {
            Preparation::Nothing => Extra::Nothing,
            Preparation::Webhook(ready) => Extra::Webhook(&ready.request),
        }
    }
}

/// What channels add to deliveries that were claimed together.
#[derive(Default)]
pub struct Prepared {
    webhooks: HashMap<DeliveryKey, Result<webhook::PreparedWebhook, Outcome>>,
}

impl Prepared {
    /// What the channel of a delivery adds to it, to be taken once.
    ///
    /// # Errors
    /// The outcome to settle instead, where it is not called.
    pub fn take(&mut self, claimed: &ClaimedDelivery) -> Result<Preparation, Outcome> {
        match needs(claimed.head.channel) {
            Needs::Nothing => Ok(Preparation::Nothing),
            Needs::Endpoint => match self.webhooks.remove(&claimed.key) {
                Some(ready) => ready.map(|ready| Preparation::Webhook(Box::new(ready))),
                // What it needs could not be read: the next claim reads it.
                None => Err(Outcome::Postponed),
            },
        }
    }
}

/// Prepares deliveries that were claimed together, with as few statements as if they were one. `contents` is what to
/// send, by message; a delivery whose content is not there is left out.
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
        tracing::warn!(error = %e, deliveries, "claimed, but what to send to whom could not be read");
        HashMap::new()
    });
    Prepared { webhooks }
}

/// A place at the destination for one request, held until the outcome is known. Given up when dropped.
pub enum DestinationPermit {
    Free,
    Webhook(webhook::EndpointReservation),
}

impl DestinationPermit {
    /// The answer to the request: the place is worth more or less to the next one by it.
    pub fn record_outcome(&mut self, outcome: &Outcome) {
        match self {
            DestinationPermit::Free => (),
            DestinationPermit::Webhook(way) => way.answered(outcome),
        }
    }
}

/// Takes a place at the destination for one request, waiting at most until `until`.
///
/// # Errors
/// The outcome to settle instead, where the place is not to be had in time.
pub async fn acquire(hub: &Hub, preparation: &mut Preparation, until: Instant) -> Result<DestinationPermit, Outcome> {
    match preparation {
        Preparation::Nothing => Ok(DestinationPermit::Free),
        Preparation::Webhook(ready) => {
            Box::pin(webhook::EndpointReservation::open(hub, ready, until)).await.map(DestinationPermit::Webhook)
        }
    }
}

/// Draws from the answer to a call what it says of the destination; before the outcome is settled.
pub async fn after_answer(hub: &Hub, preparation: &Preparation, outcome: &Outcome) {
    match preparation {
        Preparation::Nothing => (),
        Preparation::Webhook(ready) => webhook::after(hub, ready, outcome).await,
    }
}

/// How many deliveries that wait behind this one may go at once when it ends. 0: none waits behind it. `preparation`:
/// None where it was not prepared.
pub fn followers(hub: &Hub, claimed: &ClaimedDelivery, preparation: Option<&Preparation>) -> i64 {
    match (needs(claimed.head.channel), preparation) {
        (Needs::Nothing, _) => 0,
        (Needs::Endpoint, Some(Preparation::Webhook(ready))) if !ready.in_order => 0,
        (Needs::Endpoint, _) => webhook_order::followers(hub, claimed),
    }
}

/// The same for a delivery that this process does not hold: one at least, where others may wait behind it.
pub fn followers_unprepared(channel: Channel) -> i64 {
    match needs(channel) {
        Needs::Nothing => 0,
        Needs::Endpoint => 1,
    }
}

/// How many deliveries of a channel that a worker was lost with are called beside each other, each alone.
pub fn suspects_at_once(channel: Channel) -> usize {
    match needs(channel) {
        Needs::Nothing => 1,
        Needs::Endpoint => limits::SUSPECT_WEBHOOKS,
    }
}
