//! Deliveries: response shapes and handlers.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::{
    ChannelWord, DeliveryStatus, EventWord, OutcomeWord, ReceiptWord, RecipientFilter, channel_filter, recipient_filter,
};
use crate::error::{Error, Result};
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::Reader;
use crate::http::page::{ListParams, Page, PartnerParam, encode_cursor};
use crate::http::query::Query;
use crate::http::request::PathId;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::delivery::{READY_WHEN_RESUMED, STATUSES, Status, parse_public_id};
use crate::model::receipt::ReceiptOutcome;
use crate::store::delivery::{self, DeliveryFilter, DeliveryRow};
use crate::store::message::WebhookEvent;
use crate::store::{self, attempt};

/// One message to one recipient over one channel.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// `{messageId}-{no}`
    pub delivery_id: String,
    pub message_id: String,
    /// The id of the partner that owns it. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partner_id: Option<String>,
    #[schema(value_type = ChannelWord)]
    pub channel: &'static str,
    /// The recipient as the partner wrote it: an address, a phone number, a user key or a destination's name.
    pub to: String,
    /// The recipient as it is stored: a phone number in E.164.
    pub recipient: String,
    #[schema(value_type = DeliveryStatus)]
    pub status: &'static str,
    /// The reason for the status: one of the `deliveryReasons` of `GET /v1/errors`.
    pub reason: Option<String>,
    /// Attempts used so far.
    pub attempt: i16,
    pub max_attempts: i16,
    /// The provider of the last attempt.
    pub provider: Option<String>,
    /// A provider may have accepted it, although no response confirms that.
    pub possibly_sent: bool,
    /// Cancellation was requested during a call: the delivery ends CANCELED unless that call succeeds.
    pub cancel_requested: bool,
    /// When the next attempt may begin. Null unless the status is SCHEDULED; null as well while a delivery with the
    /// reason `worker_lost` waits to be claimed alone.
    pub next_at: Option<Time>,
    /// When the delivery reached its final status.
    pub settled_at: Option<Time>,
    /// The deliveryId of the posted delivery, if this one replaced it over another channel.
    pub fallback_of: Option<String>,
    /// The strongest outcome among the receipts of its attempts. Null in answers that leave out the attempts.
    pub receipt: Option<Receipt>,
    /// The time until which a receipt is awaited; null when none is.
    pub awaiting_receipt_until: Option<Time>,
    /// Webhooks only: the endpoint that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub endpoint_id: Option<String>,
    /// Webhooks only: the event that it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = EventWord, required = false)]
    pub event: Option<String>,
    /// Webhooks only: the event's id, sent as `webhook-id`. Missing if the event was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub event_id: Option<String>,
    /// Webhooks only: the messageId that the event is about, if it is about a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub about: Option<String>,
    /// All attempts, oldest first. Lists leave them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<Attempt>>,
}

/// A provider's later report about an attempt that it accepted.
#[derive(Serialize, ToSchema)]
pub struct Receipt {
    #[schema(value_type = ReceiptWord)]
    outcome: String,
    /// The provider's own code.
    code: Option<String>,
    /// The time that the provider states; without one, the time the receipt arrived.
    at: Option<Time>,
}

impl Receipt {
    fn of(row: &attempt::AttemptRow) -> Option<Receipt> {
        let (code, at) = (row.receipt_code.clone(), row.receipt_at.map(Time));
        row.receipt.clone().map(|outcome| Receipt { outcome, code, at })
    }

    /// The receipt with the strongest outcome among these attempts.
    fn strongest(attempts: &[&attempt::AttemptRow]) -> Option<Receipt> {
        let outcome =
            |row: &&attempt::AttemptRow| row.receipt.as_deref().and_then(|r| r.parse::<ReceiptOutcome>().ok());
        attempts.iter().copied().max_by_key(outcome).and_then(Receipt::of)
    }
}

/// Reads the events that the webhooks among these deliveries carry, by message id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Internal` if an event cannot be opened.
pub async fn webhook_events(hub: &Hub, rows: &[DeliveryRow]) -> Result<HashMap<Tsid, WebhookEvent>> {
    let webhooks = rows.iter().filter(|row| row.lane.channel() == Channel::Webhook);
    let messages: BTreeSet<(i16, Tsid)> = webhooks.map(|row| (row.shard, row.message_id)).collect();
    let messages: Vec<(i16, Tsid)> = messages.into_iter().collect();
    store::message::webhook_events(hub.store.api(), &hub.keyring, &messages).await
}

/// One attempt to send a delivery: a call to a provider, made or only begun.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The attempt's number within the delivery, from 1.
    attempt: i16,
    #[schema(value_type = OutcomeWord)]
    outcome: String,
    /// The response came after the attempt had been given up.
    late: bool,
    provider: Option<String>,
    claimed_at: Time,
    called_at: Option<Time>,
    ended_at: Option<Time>,
    /// When the next attempt may begin.
    next_at: Option<Time>,
    /// The reason for the failure: one of the `deliveryReasons` of `GET /v1/errors`.
    error_reason: Option<String>,
    /// The provider's own error code.
    error_code: Option<String>,
    /// The provider's own error text, shortened.
    error_detail: Option<String>,
    /// The provider's own id for what it accepted.
    provider_ref: Option<String>,
    /// The provider's later report about this attempt.
    receipt: Option<Receipt>,
    /// The id of the worker that made the attempt.
    worker: String,
}

impl Delivery {
    /// The response shape of a delivery. `attempts`: those of this delivery, oldest first; none leaves them out.
    /// `events`: as [`webhook_events`] returns them. `partner_id` is left out; the caller sets it for staff.
    pub fn of(
        row: &DeliveryRow,
        attempts: Option<Vec<&attempt::AttemptRow>>,
        events: &HashMap<Tsid, WebhookEvent>,
    ) -> Delivery {
        let event = events.get(&row.message_id);
        Delivery {
            delivery_id: format!("{}-{}", row.message_id, row.no),
            message_id: row.message_id.to_string(),
            partner_id: None,
            channel: row.lane.channel().as_str(),
            to: row.to().to_owned(),
            recipient: row.recipient.clone(),
            status: row.status.as_str(),
            reason: row.reason.clone(),
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            provider: row.provider.clone(),
            possibly_sent: row.possibly_sent,
            cancel_requested: row.cancel_requested,
            next_at: (row.status == Status::Scheduled && row.ready_at < READY_WHEN_RESUMED)
                .then_some(Time(row.ready_at)),
            settled_at: row.settled_at.map(Time),
            fallback_of: row.chain.filter(|no| *no != row.no).map(|no| format!("{}-{no}", row.message_id)),
            receipt: attempts.as_deref().and_then(Receipt::strongest),
            awaiting_receipt_until: row.receipt_due.map(Time),
            endpoint_id: event.map(|_| row.recipient.clone()),
            event: event.map(|e| e.event.clone()),
            event_id: event.and_then(|e| e.event_id.clone()),
            about: event.and_then(|e| e.about).map(|id| id.to_string()),
            attempts: attempts.map(|rows| rows.into_iter().map(Attempt::of).collect()),
        }
    }
}

impl Attempt {
    fn of(row: &attempt::AttemptRow) -> Attempt {
        Attempt {
            attempt: row.attempt,
            outcome: row.outcome.clone(),
            late: row.late,
            provider: row.provider.clone(),
            claimed_at: Time(row.claimed_at),
            called_at: row.called_at.map(Time),
            ended_at: row.ended_at.map(Time),
            next_at: row.next_at.map(Time),
            error_reason: row.reason.clone(),
            error_code: row.code.clone(),
            error_detail: row.detail.clone(),
            provider_ref: row.provider_ref.clone(),
            receipt: Receipt::of(row),
            worker: row.worker.to_string(),
        }
    }
}

/// One delivery.
#[derive(Serialize, ToSchema)]
pub struct DeliveryFound {
    pub code: Success,
    #[serde(flatten)]
    pub delivery: Delivery,
}

#[utoipa::path(get, path = "/v1/deliveries/{id}", operation_id = "getDelivery", tag = "deliveries",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the delivery", body = DeliveryFound)))]
/// One delivery
///
/// The delivery with all its attempts.
pub async fn get(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let (message_id, no) = parse_public_id(&id).ok_or(Error::NotFound)?;
    let owner = reader.owner_of_message(&hub, message_id).await?;
    let (partner, shard, db) = (owner.partner_id, owner.shard, hub.store.api());
    let rows = delivery::of_message(db, partner, shard, message_id, Some(no)).await?;
    let row = rows.first().ok_or(Error::NotFound)?;
    let attempts = attempt::of_message(db, partner, shard, message_id, Some(no)).await?;
    let events = webhook_events(&hub, &rows).await?;
    let delivery = Delivery::of(row, Some(attempts.iter().collect()), &events);
    let delivery = Delivery { partner_id: reader.partner_id_for_staff(row.partner_id), ..delivery };
    Ok(respond(StatusCode::OK, &DeliveryFound { code: Success::Success, delivery }))
}

/// A page of deliveries, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryPage {
    code: Success,
    items: Vec<Delivery>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/v1/deliveries", operation_id = "listDeliveries", tag = "deliveries",
    security(("bearer" = [])),
    params(
        ("status" = inline(Option<DeliveryStatus>), Query, description = "only deliveries with this status"),
        ("channel" = inline(Option<ChannelWord>), Query, description = "only deliveries over this \
            channel; without it all except WEBHOOK"),
        ("provider" = Option<String>, Query, description = "only deliveries whose last attempt used this provider"),
        ("error" = Option<String>, Query, description = "only deliveries with this reason"),
        ("to" = Option<String>, Query, description = "only deliveries to this recipient; a phone number in any \
            notation, an e-mail address in any case"),
        PartnerParam,
        ListParams,
    ),
    responses((status = 200, description = "a page", body = DeliveryPage)))]
/// Deliveries
///
/// A page of deliveries, newest first.
pub async fn list(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let scope = reader.scope(&hub, &mut query).await?;
    let page = Page::within_scope(&mut query, &hub, "deliveries", &scope)?;
    let RecipientFilter { to, phone, mailbox } = recipient_filter(&mut query, "to", &scope.region);
    let filter = DeliveryFilter {
        status: query.parse("status", &format!("one of {}", STATUSES.map(Status::as_str).join(", ")), |text| {
            text.parse().ok()
        })?,
        lanes: channel_filter(&mut query)?,
        provider: query.take("provider"),
        reason: query.take("error"),
        to,
        phone,
        mailbox,
    };
    query.close()?;
    let after = page.after.unwrap_or((Tsid(i64::MAX), 0));
    let window = delivery::DeliveryPage { after, below: page.below, from: page.from };
    let mut rows = delivery::list(hub.store.api(), &scope.partners, &filter, window, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next = rows
        .last()
        .filter(|_| more)
        .map(|r| encode_cursor(&hub, "deliveries", scope.cursor_owner, (r.message_id, r.no)));
    let events = webhook_events(&hub, &rows).await?;
    let item = |row: &DeliveryRow| Delivery {
        partner_id: reader.partner_id_for_staff(row.partner_id),
        ..Delivery::of(row, None, &events)
    };
    let items = rows.iter().map(item).collect();
    Ok(respond(StatusCode::OK, &DeliveryPage { code: Success::Success, items, next_cursor: next }))
}
