//! Webhooks: resolves the endpoint and renders the body of claimed deliveries, and limits the concurrent calls to an
//! endpoint.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::endpoint_health;
use super::webhook_order::{Turn, about, behind, order};
use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{DeliveryKey, Outcome, READY_WHEN_RESUMED};
use crate::model::endpoint::{Endpoint, EndpointStatus};
use crate::model::event::{EventPayload, EventSubject, WHOLE_MESSAGE_NO};
use crate::model::message::Detail;
use crate::model::partner::Partner;
use crate::model::retry::ErrorClass;
use crate::provider::WebhookRequest;
use crate::store;
use crate::store::delivery::{ClaimedDelivery, DeliveryRecipient};
use crate::store::message::StoredMessage;

/// A webhook that is ready to be called.
pub struct PreparedWebhook {
    /// The endpoint to call.
    pub endpoint_id: Tsid,
    /// URL, body, headers and secrets.
    pub request: WebhookRequest,
    /// Its endpoint asks for the events of a message in order.
    pub in_order: bool,
    turn: Turn,
}

/// Prepares claimed webhooks: returns for each the request to make, or the outcome to settle instead.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing is prepared.
pub async fn prepare(
    hub: &Hub,
    claimed: &[(&ClaimedDelivery, &StoredMessage)],
) -> Result<HashMap<DeliveryKey, std::result::Result<PreparedWebhook, Outcome>>> {
    let db = hub.store.webhooks();
    let ids: Vec<Tsid> = claimed.iter().filter_map(|(c, _)| c.recipient.parse().ok()).collect();
    let endpoints = store::endpoint::load(db, &hub.keyring, &ids).await?;
    let endpoints: HashMap<String, Endpoint> = endpoints.into_iter().map(|e| (e.endpoint_id.to_string(), e)).collect();
    let abouts: BTreeSet<(i16, Tsid)> = claimed.iter().map(|(c, contents)| (c.key.shard, about(c, contents))).collect();
    let abouts: Vec<_> = abouts.into_iter().collect();
    let messages = store::message::reported_messages(db, &abouts).await?;
    let mut order = order(hub, claimed, &endpoints).await?;
    let mut message_contents = MessageContents::default();
    let now = hub.clock.now();
    let mut prepared = HashMap::with_capacity(claimed.len());
    for (claimed, contents) in claimed {
        let about_id = about(claimed, contents);
        let turn = order.remove(&claimed.key).unwrap_or_else(|| Ok(Turn::default()));
        let payload = contents.detail.contents.first().and_then(|c| c.event.as_ref());
        let prepared_webhook = match (endpoints.get(&claimed.recipient), payload) {
            // Its secret does not open with the master keys of this process; another process may have the key.
            (None, _) => Err(Outcome::deferred(now + UNREADABLE, "endpoint_unreadable")),
            (Some(_), None) => Err(unreadable()),
            (Some(endpoint), Some(payload)) => match may_go(endpoint).and(turn) {
                Err(outcome) => Err(outcome),
                Ok(turn) => {
                    let about_message = messages.get(&about_id);
                    let about = EventSubject {
                        partner_id: contents.partner_id,
                        message_id: about_id,
                        has_message: about_message.is_some_and(|m| m.is_message),
                        kind: about_message.filter(|m| m.is_message).map(|m| m.kind.clone()),
                        client_msg_id: about_message.and_then(|m| m.client_msg_id.clone()),
                        content: message_contents.content(hub, endpoint, about_id, payload).await?,
                    };
                    let (endpoint_id, in_order) = (endpoint.endpoint_id, endpoint.ordered);
                    Ok(PreparedWebhook {
                        endpoint_id,
                        request: request(endpoint, payload, &about, now),
                        in_order,
                        turn,
                    })
                }
            },
        };
        prepared.insert(claimed.key, prepared_webhook);
    }
    Ok(prepared)
}

/// How long a webhook is deferred whose endpoint's secret does not open here.
const UNREADABLE: TimeDelta = TimeDelta::seconds(60);

fn unreadable() -> Outcome {
    Outcome::Rejected {
        class: ErrorClass::Content,
        code: "content_unreadable".into(),
        detail: "the stored content cannot be read by this version of the hub".into(),
        retry_after: None,
    }
}

/// Checks by its status whether anything may be sent to an endpoint.
fn may_go(endpoint: &Endpoint) -> std::result::Result<(), Outcome> {
    match endpoint.status {
        EndpointStatus::Active => Ok(()),
        EndpointStatus::Paused => Err(Outcome::deferred(READY_WHEN_RESUMED, "endpoint_paused")),
        EndpointStatus::Deleted => Err(Outcome::Canceled),
        EndpointStatus::Disabled => Err(Outcome::Rejected {
            class: ErrorClass::EndpointDisabled,
            code: endpoint.disabled_reason.clone().unwrap_or_else(|| "disabled".into()),
            detail: "the endpoint is disabled; make it ACTIVE, then recover what it missed".into(),
            retry_after: None,
        }),
    }
}

fn request(endpoint: &Endpoint, payload: &EventPayload, about: &EventSubject, now: DateTime<Utc>) -> WebhookRequest {
    WebhookRequest {
        partner_id: endpoint.partner_id,
        url: endpoint.url.clone(),
        event_id: payload.event_id(about.message_id),
        body: payload.body(about),
        headers: endpoint.headers.clone(),
        secret: endpoint.secret.clone(),
        former_secret: endpoint.valid_previous_secret(now).map(str::to_owned),
        timestamp: now.timestamp(),
    }
}

/// Contents of the messages that events are about, each read once for a claim.
#[derive(Default)]
struct MessageContents {
    partners: HashMap<Tsid, Option<Partner>>,
    messages: HashMap<Tsid, Option<(Detail, Vec<DeliveryRecipient>)>>,
}

impl MessageContents {
    /// The content that goes into the body of an event: None unless the endpoint asks for it and its partner may
    /// receive it.
    async fn content(
        &mut self,
        hub: &Hub,
        endpoint: &Endpoint,
        about: Tsid,
        payload: &EventPayload,
    ) -> Result<Option<Value>> {
        if !endpoint.include_content {
            return Ok(None);
        }
        let db = hub.store.webhooks();
        let (id, shard) = (endpoint.partner_id, endpoint.shard);
        if let Entry::Vacant(place) = self.partners.entry(id) {
            place.insert(store::partner::get(db, id).await?);
        }
        if !self.partners.get(&id).and_then(Option::as_ref).is_some_and(|p| p.may_receive_content) {
            return Ok(None);
        }
        if let Entry::Vacant(place) = self.messages.entry(about) {
            let read = match store::message::get(db, &hub.keyring, id, shard, about).await? {
                Some(message) => Some((message.detail, store::delivery::recipients(db, shard, about).await?)),
                None => None,
            };
            place.insert(read);
        }
        let Some(Some((detail, deliveries))) = self.messages.get(&about) else { return Ok(None) };
        let mut content_json = json!({"title": detail.title, "metadata": detail.metadata});
        if payload.no > WHOLE_MESSAGE_NO {
            let delivery = deliveries.iter().find(|d| d.no == payload.no);
            let content = delivery.and_then(|d| detail.contents.get(usize::try_from(d.content).ok()?));
            content_json["to"] = json!(delivery.map(|d| d.recipient_as_given.as_ref().unwrap_or(&d.recipient)));
            content_json["subject"] = json!(content.and_then(|c| c.subject.as_ref()));
            content_json["body"] = json!(content.map(|c| &c.body));
        }
        Ok(Some(content_json))
    }
}

/// One of the concurrent calls that an endpoint takes, held during a call. Freed when dropped.
pub struct EndpointReservation {
    hub: Hub,
    endpoint_id: Tsid,
    partner_id: Tsid,
    since: Instant,
    answered: bool,
    /// Sends to the next webhook in order once this one is delivered.
    before: Option<oneshot::Sender<()>>,
}

impl EndpointReservation {
    /// Waits for the webhook ahead in order, at most until `until`, and for a free call of the endpoint, at most for
    /// `limits::GATE_WAIT`.
    ///
    /// # Errors
    /// The outcome to settle instead where it would have to wait longer: deferred.
    pub async fn open(
        hub: &Hub,
        ready: &mut PreparedWebhook,
        until: Instant,
    ) -> std::result::Result<EndpointReservation, Outcome> {
        let (endpoint_id, partner_id) = (ready.endpoint_id, ready.request.partner_id);
        if let Some(after) = ready.turn.after.take()
            && !matches!(tokio::time::timeout_at(until.into(), after).await, Ok(Ok(())))
        {
            return Err(behind());
        }
        let began = Instant::now();
        loop {
            let entered = hub.gates().try_acquire(endpoint_id, partner_id, hub.clock.now());
            let Err(wait) = entered else { break };
            if began.elapsed() + wait > limits::GATE_WAIT {
                let until = hub.clock.now() + TimeDelta::from_std(wait).unwrap_or_default();
                return Err(Outcome::deferred(until, "endpoint_busy"));
            }
            tokio::time::sleep(wait).await;
        }
        let before = ready.turn.before.take();
        Ok(EndpointReservation {
            hub: hub.clone(),
            endpoint_id,
            partner_id,
            since: Instant::now(),
            answered: false,
            before,
        })
    }

    /// Records the outcome of the call: a success lets the next webhook in order go at once. Whether there was an
    /// answer, and how long it took, widens or narrows the gate when this is dropped.
    pub fn record_outcome(&mut self, outcome: &Outcome) {
        self.answered = match outcome {
            Outcome::Accepted { .. } | Outcome::Arrived => true,
            Outcome::Rejected { class, .. } => *class != ErrorClass::Unreachable,
            _ => false,
        };
        let succeeded = matches!(outcome, Outcome::Accepted { .. });
        if let Some(before) = self.before.take().filter(|_| succeeded) {
            // Fails if the next one no longer waits.
            let _gone = before.send(());
        }
        self.hub.endpoint_answers.note(self.endpoint_id, succeeded, self.hub.clock.now());
    }
}

impl Drop for EndpointReservation {
    fn drop(&mut self) {
        self.hub.gates().release(self.endpoint_id, self.partner_id, self.since.elapsed(), self.answered);
    }
}

/// Disables an endpoint that answered 410 Gone, if its URL is still the one called. A failure is logged, and the next
/// such answer tries again.
pub async fn after(hub: &Hub, ready: &PreparedWebhook, outcome: &Outcome) {
    let is_gone = matches!(outcome, Outcome::Rejected { class: ErrorClass::EndpointGone, .. });
    let (endpoint_id, url) = (ready.endpoint_id, &ready.request.url);
    if is_gone && let Err(e) = Box::pin(endpoint_health::disable(hub, endpoint_id, "gone", Some(url))).await {
        tracing::warn!(
            error = %e, endpoint = %endpoint_id,
            "an endpoint that answered 410 Gone could not be disabled; its next answer tries again"
        );
    }
}
