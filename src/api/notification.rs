//! `/notifications`: messages in the words of seed 003. A notification is a message whose deliveries have four
//! statuses.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::form::NewNotification;
use super::message::{IdempotencyKeyHeader, accepted_response, any_possibly_sent, apply_idempotency_key, find_page};
use super::shape::{ChannelWord, MessageStatus, NotificationStatus, message_filter, message_id};
use crate::flow;
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::{Caller, Reader};
use crate::http::page::{ListParams, Page, encode_cursor};
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::message::{Message, OverallStatus};
use crate::model::partner::PartnerScope;
use crate::store::delivery::DeliveryRow;
use crate::store::message::ListedMessage;

/// A stored notification.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationAccepted {
    code: Success,
    /// 13 characters.
    id: String,
    client_msg_id: Option<String>,
    #[schema(value_type = MessageStatus)]
    status: &'static str,
    created_at: Time,
    deliveries: Vec<NotificationStored>,
}

#[derive(Serialize, ToSchema)]
pub struct NotificationStored {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    recipient: String,
    #[schema(value_type = NotificationStatus)]
    status: &'static str,
}

#[utoipa::path(post, path = "/notifications", operation_id = "postNotification", tag = "notifications",
    security(("bearer" = [])),
    params(IdempotencyKeyHeader),
    request_body = NewNotification,
    responses(
        (status = 202, description = "stored", body = NotificationAccepted,
            headers(("Location", description = "the notification"))),
        (status = 200, description = "already stored (`Idempotent-Replayed: true`)", body = NotificationAccepted),
    ))]
/// Post a notification
///
/// The notification is stored when the answer arrives; a worker sends it afterwards. The full form of a message, as
/// `POST /v1/messages` takes it, is accepted as well.
pub async fn accept(
    State(hub): State<Hub>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<{ limits::BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let mut posted = crate::model::intake::notification(&body, &hub.intake_policy(&caller.partner))?;
    apply_idempotency_key(&mut posted.message, &headers)?;
    let accepted = flow::intake::accept::accept(&hub, &caller.partner, posted).await?;
    let (id, replayed, status) = (accepted.message_id, accepted.replayed, accepted.status.as_notification_str());
    let stored =
        |(channel, recipient): (Channel, String)| NotificationStored { channel: channel.as_str(), recipient, status };
    let body = NotificationAccepted {
        code: Success::Success,
        id: id.to_string(),
        client_msg_id: accepted.client_msg_id,
        status: OverallStatus::Pending.as_str(),
        created_at: Time(accepted.created_at),
        deliveries: accepted.deliveries.into_iter().map(stored).collect(),
    };
    let mut response = accepted_response(id, replayed, &body);
    if let Ok(location) = HeaderValue::from_str(&format!("/notifications/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A notification with its deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationFound {
    code: Success,
    /// 13 characters.
    id: String,
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    message: Option<String>,
    #[schema(value_type = MessageStatus)]
    status: &'static str,
    /// True if a provider may have accepted a delivery that did not succeed.
    possibly_sent: bool,
    created_at: Time,
    deliveries: Vec<NotificationDelivery>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationDelivery {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    recipient: String,
    #[schema(value_type = NotificationStatus)]
    status: &'static str,
    /// Attempts used so far.
    attempts: i16,
    /// The reason for the status: one of the `deliveryReasons` of `GET /v1/errors`.
    error: Option<String>,
    /// A provider may have accepted it, although no response confirms that.
    possibly_sent: bool,
    /// When the delivery reached its final status.
    settled_at: Option<Time>,
}

#[utoipa::path(get, path = "/notifications/{id}", operation_id = "getNotification", tag = "notifications",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the notification's id")),
    responses((status = 200, description = "the notification", body = NotificationFound)))]
/// One notification
///
/// The notification with its overall status and its deliveries.
pub async fn get(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = message_id(&id)?;
    let owner = reader.owner_of_message(&hub, id).await?;
    let whole = flow::story::message_details(&hub, &owner, id).await?;
    let possibly_sent = any_possibly_sent(&whole.deliveries);
    let delivery = |row: DeliveryRow| NotificationDelivery {
        channel: row.lane.channel().as_str(),
        recipient: row.to().to_owned(),
        status: row.status.as_notification_str(),
        attempts: row.attempt,
        error: row.reason,
        possibly_sent: row.possibly_sent,
        settled_at: row.settled_at.map(Time),
    };
    let message = whole.message;
    let body = NotificationFound {
        code: Success::Success,
        id: message.message_id.to_string(),
        kind: message.kind,
        title: message.detail.title,
        message: message.detail.contents.into_iter().next().map(|content| content.body),
        status: whole.overall.as_str(),
        possibly_sent,
        created_at: Time(message.created_at),
        deliveries: whole.deliveries.into_iter().map(delivery).collect(),
    };
    Ok(respond(StatusCode::OK, &body))
}

/// A page of notifications, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationPage {
    code: Success,
    items: Vec<NotificationListed>,
    /// Pass it as `cursor` to get the next page; null on the last page. A page with fewer items than `limit` may still
    /// have a next one.
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationListed {
    /// 13 characters.
    id: String,
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    #[schema(value_type = MessageStatus)]
    status: &'static str,
    created_at: Time,
    deliveries: Vec<NotificationState>,
}

#[derive(Serialize, ToSchema)]
pub struct NotificationState {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    #[schema(value_type = NotificationStatus)]
    status: &'static str,
}

#[utoipa::path(get, path = "/notifications", operation_id = "listNotifications", tag = "notifications",
    security(("bearer" = [])),
    params(
        ("status" = inline(Option<MessageStatus>), Query, description = "only notifications with this overall status"),
        ("channel" = inline(Option<ChannelWord>), Query, description = "only notifications with a delivery over this \
            channel"),
        ("type" = Option<String>, Query, description = "only notifications of this type"),
        ("clientMsgId" = Option<String>, Query, description = "only the notification with this clientMsgId"),
        ("recipient" = Option<String>, Query, description = "only notifications to this recipient; a phone number in \
            any \
            notation, an e-mail address in any case"),
        ListParams,
    ),
    responses((status = 200, description = "a page", body = NotificationPage)))]
/// Notifications
///
/// A page of notifications, newest first.
pub async fn list(State(hub): State<Hub>, caller: Caller, mut query: Query) -> Answer {
    let scope = PartnerScope::of_partner(&caller.partner, caller.partner.oldest_visible_id(hub.clock.now()));
    let page = Page::within_scope(&mut query, &hub, "notifications", &scope)?;
    let (filter, overall) = message_filter(&mut query, "recipient", &scope.region)?;
    query.close()?;
    let found = find_page(&hub, &scope, &filter, overall, page).await?;
    let item = |(message, overall, row): (Message, OverallStatus, ListedMessage)| NotificationListed {
        id: message.message_id.to_string(),
        kind: message.kind,
        title: message.detail.title,
        status: overall.as_str(),
        created_at: Time(message.created_at),
        deliveries: row
            .deliveries
            .iter()
            .map(|(_, lane, status, _)| NotificationState {
                channel: lane.channel().as_str(),
                status: status.as_notification_str(),
            })
            .collect(),
    };
    let items = found.items.into_iter().map(item).collect();
    let next_cursor = found.next.map(|last| encode_cursor(&hub, "notifications", scope.cursor_owner, last));
    Ok(respond(StatusCode::OK, &NotificationPage { code: Success::Success, items, next_cursor }))
}
