//! The webhook that an endpoint is sent, as the document tells it: nothing here is made. What is sent is
//! `model::event::Told::body`, and signed in `model::signature`; a test compares the two.

#![expect(dead_code, reason = "only described, never made")]

use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::shape::{ChannelWord, EventWord, metadata};
use crate::http::problem::FaultBody;

/// An event
///
/// Sent to each endpoint that asks for it, until a 2xx comes within 15 s: after 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h
/// and 24 h again, with the same `eventId` and bytes. Signed twice over the exact bytes of the body, with the endpoint's
/// secret.
#[utoipa::path(post, path = "event", operation_id = "event", tag = "webhooks",
    params(
        ("X-Signature" = String, Header, description = "lower-case hex of HMAC-SHA256(secret, `X-Timestamp` + `.` + body), \
            keyed with the secret as text; while one secret replaces another, by the former"),
        ("X-Timestamp" = i64, Header, description = "Unix seconds; refuse what is more than 300 s off"),
        ("X-Signature-Next" = Option<String>, Header, description = "only while one secret replaces another: by the new one"),
        ("webhook-id" = String, Header, description = "the `eventId`"),
        ("webhook-timestamp" = i64, Header, description = "as `X-Timestamp`"),
        ("webhook-signature" = String, Header, description = "as Standard Webhooks says: `v1,` and base64, one for each \
            secret, with blanks between them"),
    ),
    request_body = WebhookEvent,
    responses((status = "2XX", description = "it has arrived; anything else comes again, but for 410, which disables the \
        endpoint")))]
pub fn event() {}

/// What happened. A field that has nothing to say is null; others may come.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// The same however often, and to whomever, it is sent: keep those you have seen.
    event_id: String,
    event: EventWord,
    /// Of this form: 1.
    v: i32,
    /// Rises over the events of one delivery, or of the message as a whole.
    seq: i16,
    #[schema(format = DateTime)]
    occurred_at: String,
    partner_id: String,
    /// Null: of no message.
    #[schema(required = true)]
    message_id: Option<String>,
    #[schema(required = true)]
    client_msg_id: Option<String>,
    /// The message's; `ENDPOINT_DISABLED` is the hub's own.
    #[serde(rename = "type")]
    #[schema(required = true)]
    kind: Option<String>,
    /// Null: of the message as a whole, or of none.
    #[schema(required = true)]
    delivery_id: Option<String>,
    #[schema(required = true)]
    channel: Option<ChannelWord>,
    /// Of the delivery, the message or the endpoint, by then.
    #[schema(required = true)]
    status: Option<String>,
    /// How often the delivery was tried by then.
    #[schema(required = true)]
    attempt: Option<i16>,
    #[schema(required = true)]
    provider: Option<String>,
    /// The provider's own; of `message.refused` one of the closed list of `GET /v1/errors`.
    #[schema(required = true)]
    error_code: Option<String>,
    /// One of the `deliveryReasons`, or `reasons`, of `GET /v1/errors`; of `endpoint.disabled`: gone, failing or paused.
    #[schema(required = true)]
    error_reason: Option<String>,
    /// What the message said: only for endpoints with `includeContent` whose partner may have it.
    #[schema(required = false, nullable = false)]
    content: Option<WebhookContent>,
    /// Of `message.refused`: the request's, as `notihub.enqueue` returned it.
    #[schema(required = false, nullable = false)]
    request_id: Option<String>,
    /// Of `message.refused`: a sentence for people; may change.
    #[schema(required = false, nullable = false)]
    error_detail: Option<String>,
    /// Of `message.refused`: every fault found.
    #[schema(required = false, nullable = false)]
    errors: Option<Vec<FaultBody>>,
    /// Of `endpoint.disabled`: which, …
    #[schema(required = false, nullable = false)]
    endpoint_id: Option<String>,
    /// … and where it led.
    #[schema(required = false, nullable = false)]
    url: Option<String>,
}

/// What a message said; of an event about one delivery also to whom, in its own words.
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
