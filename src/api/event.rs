//! The webhook request as the OpenAPI document describes it. No value of these types is ever made: the body is built in
//! `model::event::Told::body`, and signed in `model::signature`; a test compares the two.

#![expect(dead_code, reason = "described in the document, never constructed")]

use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::shape::{ChannelWord, EventWord, metadata};
use crate::http::problem::FaultBody;

#[utoipa::path(post, path = "event", operation_id = "event", tag = "webhooks",
    params(
        ("X-Signature" = String, Header, description = "lower-case hex of HMAC-SHA256(secret, \
            `X-Timestamp` + `.` + body), keyed with the secret as text; during a \
            rotation, made with the former secret"),
        ("X-Timestamp" = i64, Header, description = "Unix seconds; refuse a request that is more than 300 s off"),
        ("X-Signature-Next" = Option<String>, Header, description = "only during a \
            rotation: the signature made with the new secret"),
        ("webhook-id" = String, Header, description = "the `eventId`"),
        ("webhook-timestamp" = i64, Header, description = "the same as `X-Timestamp`"),
        ("webhook-signature" = String, Header, description = "in the form of Standard Webhooks: `v1,` and base64, \
            one entry for each secret, separated by blanks"),
    ),
    request_body = WebhookEvent,
    responses((status = "2XX", description = "the event has arrived; after any other status it is sent again, \
        except after 410, which disables the endpoint")))]
/// The operation that the document describes; it is never called.
/// An event
///
/// The hub posts an event to each endpoint that subscribes to it. An attempt succeeds when a 2xx arrives within 15 s;
/// otherwise the hub tries again after 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, with the same `eventId` and
/// the same bytes. Each request has two signatures over the exact bytes of the body, made with the endpoint's secret.
pub fn event() {}

/// An event. Fields that do not apply are null. Later versions may add fields: ignore those you do not know.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// The event's id, the same in every attempt and for every endpoint. Keep the ids you have processed, to skip
    /// repeats.
    event_id: String,
    event: EventWord,
    /// The version of this format: 1.
    v: i32,
    /// Increases over the events of one delivery, and over those of the message as a whole.
    seq: i16,
    #[schema(format = DateTime)]
    occurred_at: String,
    partner_id: String,
    /// Null if the event is about no message.
    #[schema(required = true)]
    message_id: Option<String>,
    #[schema(required = true)]
    client_msg_id: Option<String>,
    /// The message's type. The hub's own messages have the type `ENDPOINT_DISABLED`.
    #[serde(rename = "type")]
    #[schema(required = true)]
    kind: Option<String>,
    /// Null if the event is about the message as a whole, or about no message.
    #[schema(required = true)]
    delivery_id: Option<String>,
    #[schema(required = true)]
    channel: Option<ChannelWord>,
    /// The status of the delivery, the message or the endpoint when the event happened.
    #[schema(required = true)]
    status: Option<String>,
    /// The attempts that the delivery had used when the event happened.
    #[schema(required = true)]
    attempt: Option<i16>,
    #[schema(required = true)]
    provider: Option<String>,
    /// The provider's own code; for `message.refused` one of the `codes` of `GET /v1/errors`.
    #[schema(required = true)]
    error_code: Option<String>,
    /// One of the `deliveryReasons` of `GET /v1/errors`; for `message.refused` one of its `reasons`; for
    /// `endpoint.disabled`: gone, failing or paused.
    #[schema(required = true)]
    error_reason: Option<String>,
    /// The content of the message. Only for endpoints with `includeContent` whose partner has the capability
    /// `webhook_content`.
    #[schema(required = false, nullable = false)]
    content: Option<WebhookContent>,
    /// Only for `message.refused`: the id that `notihub.enqueue` returned.
    #[schema(required = false, nullable = false)]
    request_id: Option<String>,
    /// Only for `message.refused`: a sentence for people; it may change.
    #[schema(required = false, nullable = false)]
    error_detail: Option<String>,
    /// Only for `message.refused`: every fault found.
    #[schema(required = false, nullable = false)]
    errors: Option<Vec<FaultBody>>,
    /// Only for `endpoint.disabled`: the endpoint's id.
    #[schema(required = false, nullable = false)]
    endpoint_id: Option<String>,
    /// Only for `endpoint.disabled`: the endpoint's URL.
    #[schema(required = false, nullable = false)]
    url: Option<String>,
}

/// The content of a message. For an event about one delivery also the recipient, as the partner wrote it.
#[derive(ToSchema)]
pub struct WebhookContent {
    #[schema(required = true)]
    title: Option<String>,
    #[schema(schema_with = metadata)]
    metadata: Map<String, Value>,
    #[schema(required = false)]
    to: Option<String>,
    #[schema(required = false)]
    subject: Option<String>,
    #[schema(required = false)]
    body: Option<String>,
}

/// An event of a stream, as clients of Server-Sent Events receive it.
#[derive(ToSchema)]
pub struct ServerSentEvent {
    /// The event's name.
    event: String,
    /// The position after it, for `Last-Event-ID`.
    id: String,
    /// The event as JSON: the body of the webhook that reports it (WebhookEvent).
    data: String,
}
