//! Messages: response shapes and handlers.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

use super::delivery::{Delivery, webhook_events};
use super::form;
use super::shape::{
    ChannelWord, DeliveryStatus, EventWord, MessageStatus, PriorityWord, SeverityWord, message_filter, message_id,
    metadata,
};
use crate::error::{Code, Fault, Refusal, Result};
use crate::flow;
use crate::flow::story::{self, MessageDetails};
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::{Caller, Reader, charge_rate_limit};
use crate::http::page::{ListParams, Page, PartnerParam, encode_cursor};
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::delivery::{READY_WHEN_RESUMED, Status};
use crate::model::idempotency::Accepted;
use crate::model::intake::IntakePolicy;
use crate::model::message::{Content, Fallback, Message, NewDelivery, NewMessage, OverallStatus};
use crate::model::partner::PartnerScope;
use crate::store::delivery::{DeliveryRow, WebhookMessage};
use crate::store::message::{ListedMessage, MessageFilter, WebhookEvent};

/// A stored message, or the result of a dry run.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum AcceptedOrDry {
    Accepted(MessageAccepted),
    Dry(DryRun),
}

#[utoipa::path(post, path = "/v1/messages", operation_id = "postMessage", tag = "messages",
    security(("bearer" = [])),
    params(
        ("dryRun" = Option<bool>, Query, description = "true: check the message and show what would be sent, without \
            storing it"),
        IdempotencyKeyHeader,
    ),
    request_body = form::NewMessage,
    responses(
        (status = 202, description = "stored", body = MessageAccepted,
            headers(("Location", description = "the message"))),
        (status = 200, description = "already stored (`Idempotent-Replayed: true`), or a dry \
            run", body = AcceptedOrDry),
    ))]
/// Post a message
///
/// The message and its deliveries are stored when the answer arrives; a worker sends them afterwards. Repeating the
/// same message with the same clientMsgId (or `Idempotency-Key`) answers 200 with the first result, even if its times
/// have passed or the partner may no longer use the channel; a different message with the same key is answered with
/// 409. A dry run ignores the key.
pub async fn accept(
    State(hub): State<Hub>,
    caller: Caller,
    mut query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<{ limits::BODY_BYTES }>,
) -> Answer {
    let dry_run = query.parse("dryRun", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    query.close()?;
    let policy = hub.intake_policy(&caller.partner);
    let mut posted = crate::model::intake::message(&body, &policy)?;
    apply_idempotency_key(&mut posted.message, &headers)?;
    if dry_run {
        let dry = dry_run_of(posted.into_new()?, &policy);
        return Ok(respond(StatusCode::OK, &AcceptedOrDry::Dry(dry)));
    }
    let accepted = flow::intake::accept::accept(&hub, &caller.partner, posted).await?;
    let (message_id, replayed) = (accepted.message_id, accepted.replayed);
    Ok(accepted_response(message_id, replayed, &AcceptedOrDry::Accepted(MessageAccepted::of(accepted))))
}

/// The header `Idempotency-Key`, which [`apply_idempotency_key`] reads.
pub enum IdempotencyKeyHeader {}

impl IntoParams for IdempotencyKeyHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
            .min_length(Some(1))
            .max_length(Some(limits::CLIENT_MSG_ID_CHARS))
            .pattern(Some("^[!-~]+$"));
        let about = "The same as `clientMsgId`, for clients that cannot set it in the body.";
        let header = ParameterBuilder::new().name("Idempotency-Key").parameter_in(ParameterIn::Header);
        vec![header.required(Required::False).description(Some(about)).schema(Some(text)).build()]
    }
}

/// Copies the header `Idempotency-Key` into the message's `clientMsgId`. Without the header the message stays as it is.
///
/// # Errors
/// `Error::Refused` with `idempotency_key_invalid` if the header is given twice, is not 1 to 128 visible characters, or
/// differs from the `clientMsgId` of the body.
pub fn apply_idempotency_key(message: &mut NewMessage, headers: &HeaderMap) -> Result<()> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(()) };
    let visible =
        |k: &&str| !k.trim().is_empty() && k.len() <= limits::CLIENT_MSG_ID_CHARS && !k.contains(char::is_control);
    let key = key.to_str().ok().filter(visible);
    let key = key.filter(|_| given.next().is_none());
    let key = key.ok_or_else(|| invalid_key("must be given once, as 1 to 128 visible characters"))?;
    match &message.client_msg_id {
        Some(id) if id != key => Err(invalid_key("differs from clientMsgId; send one of them").into()),
        _ => {
            message.client_msg_id = Some(key.to_owned());
            Ok(())
        }
    }
}

fn invalid_key(detail: &'static str) -> Refusal {
    let pointer = "Idempotency-Key".to_owned();
    Refusal::from_faults(vec![Fault {
        pointer,
        reason: "idempotency_key_invalid",
        detail: detail.into(),
        code: Code::E001,
    }])
}

/// The answer to a posted message: 202 for a new one, 200 with `Idempotent-Replayed: true` for a repeated one.
/// `Location` is the message's address.
pub fn accepted_response(message_id: Tsid, replayed: bool, body: &(impl Serialize + ToSchema)) -> Response {
    let status = if replayed { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = respond(status, body);
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/messages/{message_id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// A stored message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageAccepted {
    code: Success,
    #[serde(flatten)]
    message: StoredMessage,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// 13 characters.
    message_id: String,
    client_msg_id: Option<String>,
    #[schema(value_type = MessageStatus)]
    status: &'static str,
    created_at: Time,
    deliveries: Vec<StoredDelivery>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredDelivery {
    /// `{messageId}-{no}`
    delivery_id: String,
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    to: String,
    #[schema(value_type = DeliveryStatus)]
    status: &'static str,
}

impl StoredMessage {
    fn of(accepted: Accepted) -> StoredMessage {
        let delivery = |(no, (channel, to)): (u32, (Channel, String))| StoredDelivery {
            delivery_id: format!("{}-{no}", accepted.message_id),
            channel: channel.as_str(),
            to,
            status: accepted.status.as_str(),
        };
        StoredMessage {
            message_id: accepted.message_id.to_string(),
            client_msg_id: accepted.client_msg_id,
            status: OverallStatus::Pending.as_str(),
            created_at: Time(accepted.created_at),
            deliveries: (1..).zip(accepted.deliveries).map(delivery).collect(),
        }
    }
}

impl MessageAccepted {
    fn of(accepted: Accepted) -> MessageAccepted {
        MessageAccepted { code: Success::Success, message: StoredMessage::of(accepted) }
    }
}

/// The result of a dry run: what would be sent, and to whom.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    code: Success,
    /// Always true.
    dry_run: bool,
    client_msg_id: Option<String>,
    deliveries: Vec<DryDelivery>,
    /// Each content once, however many recipients it has.
    contents: Vec<DryContent>,
}

#[derive(Serialize, ToSchema)]
pub struct DryDelivery {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    to: String,
    #[schema(value_type = DeliveryStatus)]
    status: &'static str,
    /// The index of its content in `contents`, from 0.
    content: i16,
    /// The recipient as it would be stored: a phone number in E.164.
    recipient: String,
}

#[derive(Serialize, ToSchema)]
pub struct DryContent {
    /// The number of parts that the content is sent in. Always 1: a text that is longer than its channel's limit is
    /// refused, never split.
    parts: usize,
    /// The size of the content in bytes, all fields together.
    bytes: usize,
    subject: Option<String>,
    body: String,
    /// The body's length for each channel that has a limit.
    lengths: Vec<BodyLength>,
    /// The fallback that is sent if this content does not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = FallbackShape, required = false)]
    fallback: Option<FallbackShape>,
}

/// The result of a dry run of `message`, at the time of `policy`.
fn dry_run_of(message: NewMessage, policy: &IntakePolicy) -> DryRun {
    let waits = message.scheduled_at.is_some_and(|at| at > policy.now);
    let status = if waits { Status::Scheduled } else { Status::Pending }.as_str();
    let mut used: BTreeSet<(i16, Channel)> = message.deliveries.iter().map(|d| (d.content, d.channel)).collect();
    let standing_by = message.detail.contents.iter().filter_map(|c| c.fallback.as_ref());
    used.extend(standing_by.map(|f| (f.content, f.channel)));
    let delivery = |d: NewDelivery| DryDelivery {
        channel: d.channel.as_str(),
        to: d.displayed_recipient().to_owned(),
        status,
        content: d.content,
        recipient: d.to,
    };
    let content = |(c, index): (Content, i16)| {
        let channels = used.range((index, CHANNELS[0])..).take_while(|u| u.0 == index);
        let lengths: Vec<_> = channels.filter_map(|(_, channel)| BodyLength::of(&c.body, *channel, policy)).collect();
        let parts = lengths.iter().map(|l| l.length.div_ceil(l.limit)).fold(1, usize::max);
        let (bytes, fallback) = (c.size_bytes(), c.fallback.map(|f| FallbackShape::of(*f)));
        DryContent { parts, bytes, subject: c.subject, body: c.body, lengths, fallback }
    };
    DryRun {
        code: Success::Success,
        dry_run: true,
        client_msg_id: message.client_msg_id,
        deliveries: message.deliveries.into_iter().map(delivery).collect(),
        contents: message.detail.contents.into_iter().zip(0..).map(content).collect(),
    }
}

/// A body's length and limit, in the unit that the channel counts in.
#[derive(Serialize, ToSchema)]
pub struct BodyLength {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    length: usize,
    limit: usize,
    /// `bytes` (of CP949, as Korean carriers count) or `characters`.
    unit: &'static str,
}

impl BodyLength {
    fn of(body: &str, channel: Channel, policy: &IntakePolicy) -> Option<BodyLength> {
        let limit = policy.installation.body_limit(channel)?;
        let length = limit.measure.length_of(body).ok()?;
        Some(BodyLength { channel: channel.as_str(), length, limit: limit.max, unit: limit.measure.unit() })
    }
}

/// The messages of a batch, in the order of the request.
#[derive(Serialize, ToSchema)]
pub struct BatchAccepted {
    code: Success,
    messages: Vec<BatchItem>,
}

#[derive(Serialize, ToSchema)]
pub struct BatchItem {
    code: Success,
    #[serde(flatten)]
    message: StoredMessage,
    /// True if the message had already been stored.
    replayed: bool,
}

#[utoipa::path(post, path = "/v1/messages/batch", operation_id = "postBatch", tag = "messages",
    security(("bearer" = [])),
    request_body = form::NewBatch,
    responses(
        (status = 202, description = "stored", body = BatchAccepted),
        (status = 200, description = "all of them had already been stored", body = BatchAccepted),
    ))]
/// Post a batch
///
/// Stores all messages of the batch, or none. The answer is 200 when all of them had already been stored. A message
/// whose clientMsgId is known is answered with its first result; its times, the partner's rights and the batch limit
/// are checked only for new messages.
pub async fn accept_batch(
    State(hub): State<Hub>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<{ limits::BATCH_BYTES }>,
) -> Answer {
    query.close()?;
    if headers.contains_key("idempotency-key") {
        return Err(invalid_key("is for one message; in a batch each message has its own clientMsgId").into());
    }
    let rate = hub.rates.of(caller.partner.partner_id);
    let _turn = hub.intake.batch_turn(&rate).await?;
    // Parsing hundreds of messages takes milliseconds of CPU: run it on a blocking thread.
    let policy = hub.intake_policy(&caller.partner);
    let mut messages = hub.shutdown.compute(move || crate::model::intake::batch(&body, &policy)).await??;
    let (n, limit) = (messages.len(), caller.partner.rate_limit_tps);
    if i32::try_from(n).unwrap_or(i32::MAX) > limit {
        let detail = format!("is a batch of {n} messages; your limit is {limit} a second: send fewer at once");
        let fault =
            Fault { pointer: "/messages".into(), reason: "batch_size", detail: detail.into(), code: Code::E001 };
        // Only new messages are refused for it: the limit may have been higher when the others were stored.
        messages.iter_mut().for_each(|posted| posted.faults_if_new.insert(0, fault.clone()));
    } else {
        // Each message counts against the rate limit; the request itself was already counted as one.
        charge_rate_limit(&hub, &caller.partner, n - 1).await?;
    }
    let accepted = flow::intake::accept::accept_all(&hub, &caller.partner, messages).await?;
    let all_replayed = accepted.iter().all(|a| a.replayed);
    let item = |accepted: Accepted| BatchItem {
        code: Success::Success,
        replayed: accepted.replayed,
        message: StoredMessage::of(accepted),
    };
    let messages = accepted.into_iter().map(item).collect();
    let status = if all_replayed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(respond(status, &BatchAccepted { code: Success::Success, messages }))
}

/// A message without its deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageHead {
    /// 13 characters.
    message_id: String,
    /// The id of the partner that owns it. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<String>,
    client_msg_id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[schema(value_type = PriorityWord)]
    priority: &'static str,
    title: Option<String>,
    #[schema(value_type = MessageStatus)]
    status: &'static str,
    created_at: Time,
    scheduled_at: Option<Time>,
    expires_at: Option<Time>,
    #[schema(schema_with = metadata)]
    metadata: Map<String, Value>,
}

impl MessageHead {
    fn of(message: Message, overall: OverallStatus, to_staff: bool) -> MessageHead {
        MessageHead {
            partner_id: to_staff.then(|| message.partner_id.to_string()),
            message_id: message.message_id.to_string(),
            client_msg_id: message.client_msg_id,
            kind: message.kind,
            priority: message.priority.as_str(),
            title: message.detail.title,
            status: overall.as_str(),
            created_at: Time(message.created_at),
            scheduled_at: message.scheduled_at.map(Time),
            expires_at: message.expires_at.map(Time),
            metadata: message.detail.metadata,
        }
    }
}

/// A message with its contents, deliveries and webhooks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageFound {
    code: Success,
    #[serde(flatten)]
    head: MessageHead,
    /// True if a provider may have accepted a delivery that did not succeed.
    possibly_sent: bool,
    /// The contents, each once. Deliveries and fallbacks refer to them by index.
    contents: Vec<ContentShape>,
    deliveries: Vec<Delivery>,
    /// The webhooks about this message, oldest first, at most 1,000.
    webhooks: Vec<MessageWebhook>,
    /// True if there are more webhooks than `webhooks` lists. `GET /v1/webhooks/{id}/deliveries` lists all of an
    /// endpoint.
    more_webhooks: bool,
}

/// One webhook about a message: one event for one endpoint.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageWebhook {
    /// The deliveryId of the webhook itself.
    delivery_id: String,
    endpoint_id: String,
    #[schema(value_type = EventWord)]
    event: String,
    #[schema(value_type = DeliveryStatus)]
    status: &'static str,
    /// When the next attempt may begin. Null if no attempt follows, if it begins as soon as possible, or if it waits
    /// for the endpoint to be resumed.
    next_attempt_at: Option<Time>,
}

impl MessageWebhook {
    fn of(notice: WebhookMessage) -> MessageWebhook {
        let waits = notice.status == Status::Scheduled && notice.ready_at < READY_WHEN_RESUMED;
        MessageWebhook {
            delivery_id: format!("{}-{}", notice.message_id, notice.no),
            endpoint_id: notice.recipient,
            event: notice.event,
            status: notice.status.as_str(),
            next_attempt_at: waits.then_some(Time(notice.ready_at)),
        }
    }
}

/// A content: what is sent over a channel.
#[derive(Serialize, ToSchema)]
#[schema(as = Content)]
#[serde(rename_all = "camelCase")]
pub struct ContentShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subject: Option<String>,
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    html: Option<String>,
    /// Slack Block Kit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Map<String, Value>>>, nullable = false)]
    blocks: Option<Value>,
    /// The code of the template that Kakao approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    template_code: Option<String>,
    /// INAPP: where the item leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    action_url: Option<String>,
    /// INAPP: a picture beside the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    image_url: Option<String>,
    /// INAPP: the partner's own word, by which a client may sort items.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    category: Option<String>,
    /// INAPP: how much the item matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SeverityWord>, nullable = false)]
    severity: Option<String>,
    /// The fallback that is sent if this content does not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fallback: Option<FallbackShape>,
}

/// A fallback: another channel that is used if the first one does not reach the recipient.
#[derive(Serialize, ToSchema)]
#[schema(as = Fallback)]
#[serde(rename_all = "camelCase")]
pub struct FallbackShape {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    /// The index of the content that is sent over that channel, from 0.
    content: i16,
    /// The recipient over that channel. Missing if it is the same recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to: Option<String>,
    /// The fallback of the delivery with the number n gets the number n + step.
    step: i16,
    /// Seconds to wait for a receipt of the first channel. If none confirms delivery by then, the fallback is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    no_receipt_seconds: Option<u32>,
    /// The number of attempts over that channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<i16>,
    /// True if the fallback is sent also when the first channel's outcome is unknown and may have been a success.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    on_unknown: bool,
}

impl ContentShape {
    /// Leaves out `event`: each delivery of a webhook states its event in fields of its own.
    fn of(content: Content) -> ContentShape {
        let Content { subject, body, html, blocks, template_code, event: _, fallback, .. } = content;
        let Content { action_url, image_url, category, severity, .. } = content;
        let fallback = fallback.map(|f| FallbackShape::of(*f));
        ContentShape { subject, body, html, blocks, template_code, action_url, image_url, category, severity, fallback }
    }
}

impl FallbackShape {
    /// The response shape of a fallback. It does not show whether the message or a rule of the installation set it.
    fn of(fallback: Fallback) -> FallbackShape {
        let Fallback { channel, content, to, step, no_receipt_s, max_attempts: attempts, on_unknown } = fallback;
        let (channel, no_receipt_seconds) = (channel.as_str(), no_receipt_s);
        FallbackShape { channel, content, to, step, no_receipt_seconds, attempts, on_unknown }
    }
}

#[utoipa::path(get, path = "/v1/messages/{id}", operation_id = "getMessage", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId")),
    responses((status = 200, description = "the message", body = MessageFound)))]
/// One message
///
/// The message with its overall status, its deliveries with their attempts, and the webhooks about it.
pub async fn get(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = message_id(&id)?;
    let owner = reader.owner_of_message(&hub, id).await?;
    let whole = flow::story::message_details(&hub, &owner, id).await?;
    let events = webhook_events(&hub, &whole.deliveries).await?;
    let webhooks = story::webhooks(&hub, &owner, id).await?;
    Ok(respond(StatusCode::OK, &MessageFound::of(whole, webhooks, &events, reader.sees_all())))
}

impl MessageFound {
    fn of(
        whole: MessageDetails,
        (webhooks, more_webhooks): (Vec<WebhookMessage>, bool),
        events: &HashMap<Tsid, WebhookEvent>,
        to_staff: bool,
    ) -> MessageFound {
        let delivery = |row: &DeliveryRow| {
            let attempts = whole.attempts.iter().filter(|a| a.no == row.no);
            Delivery::of(row, Some(attempts.collect()), events)
        };
        let mut message = whole.message;
        let contents = std::mem::take(&mut message.detail.contents);
        MessageFound {
            code: Success::Success,
            possibly_sent: any_possibly_sent(&whole.deliveries),
            deliveries: whole.deliveries.iter().map(delivery).collect(),
            webhooks: webhooks.into_iter().map(MessageWebhook::of).collect(),
            more_webhooks,
            contents: contents.into_iter().map(ContentShape::of).collect(),
            head: MessageHead::of(message, whole.overall, to_staff),
        }
    }
}

/// Whether a provider may have accepted a delivery that did not succeed.
pub fn any_possibly_sent(deliveries: &[DeliveryRow]) -> bool {
    deliveries.iter().any(|d| d.possibly_sent && !d.status.is_success())
}

/// A page of messages that pass a filter. `next` is the position of the next page: the last message id that was looked
/// at, and 0; none on the last page.
pub struct MessagePageRows {
    pub items: Vec<(Message, OverallStatus, ListedMessage)>,
    pub next: Option<(Tsid, i16)>,
}

/// Reads a page of the messages in `scope` that pass `filter` and have the overall status `overall` (none: any), newest
/// first. The overall status is computed from the deliveries, so a filter on it reads more rows than it returns. A page
/// reads at most [`limits::PAGE_LOOK`] rows: it may return fewer messages than asked for and still have a next page.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Internal` if a row cannot be read.
pub async fn find_page(
    hub: &Hub,
    scope: &PartnerScope,
    filter: &MessageFilter,
    overall: Option<OverallStatus>,
    page: Page,
) -> Result<MessagePageRows> {
    let mut below = page.after.map_or(page.below, |after| after.0.min(page.below));
    let mut items = Vec::new();
    let mut looked = 0;
    let limit = usize::try_from(page.limit).unwrap_or(0);
    loop {
        let window = if overall.is_some() { limits::PAGE_MAX } else { page.limit + 1 };
        let db = hub.store.api();
        let rows = crate::store::message::list(db, &hub.keyring, &scope.partners, filter, (below, page.from), window);
        let rows = rows.await?;
        let last_window = (rows.len() as i64) < window;
        for row in rows {
            looked += 1;
            let status = OverallStatus::of(
                row.deliveries.iter().map(|(chain, lane, status, n)| (*chain, lane.channel(), *status, *n)),
            );
            if items.len() == limit {
                return Ok(MessagePageRows { items, next: Some((below, 0)) });
            }
            below = row.message.message_id;
            if overall.is_none_or(|wanted| wanted == status) {
                items.push((row.message.clone(), status, row));
            }
        }
        if last_window {
            return Ok(MessagePageRows { items, next: None });
        }
        if looked >= limits::PAGE_LOOK || items.len() == limit {
            return Ok(MessagePageRows { items, next: Some((below, 0)) });
        }
    }
}

/// A page of messages, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessagePage {
    code: Success,
    items: Vec<MessageListed>,
    /// Pass it as `cursor` to get the next page; null on the last page. A page with fewer items than `limit` may still
    /// have a next one.
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageListed {
    #[serde(flatten)]
    head: MessageHead,
    delivery_count: usize,
}

#[utoipa::path(get, path = "/v1/messages", operation_id = "listMessages", tag = "messages",
    security(("bearer" = [])),
    params(
        ("status" = inline(Option<MessageStatus>), Query, description = "only messages with this overall status"),
        ("channel" = inline(Option<ChannelWord>), Query, description = "only messages with a delivery over this \
            channel"),
        ("type" = Option<String>, Query, description = "only messages of this type"),
        ("clientMsgId" = Option<String>, Query, description = "only the message with this clientMsgId"),
        ("to" = Option<String>, Query, description = "only messages to this recipient; a phone number in any \
            notation, an e-mail address in any case"),
        PartnerParam,
        ListParams,
    ),
    responses((status = 200, description = "a page", body = MessagePage)))]
/// Messages
///
/// A page of messages, newest first.
pub async fn list(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let scope = reader.scope(&hub, &mut query).await?;
    let page = Page::within_scope(&mut query, &hub, "messages", &scope)?;
    let (filter, overall) = message_filter(&mut query, "to", &scope.region)?;
    query.close()?;
    let found = find_page(&hub, &scope, &filter, overall, page).await?;
    let item = |(message, overall, row): (Message, OverallStatus, ListedMessage)| MessageListed {
        head: MessageHead::of(message, overall, reader.sees_all()),
        delivery_count: row.deliveries.len(),
    };
    let items = found.items.into_iter().map(item).collect();
    let next_cursor = found.next.map(|last| encode_cursor(&hub, "messages", scope.cursor_owner, last));
    Ok(respond(StatusCode::OK, &MessagePage { code: Success::Success, items, next_cursor }))
}

/// Everything that happened to a message, oldest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    code: Success,
    message_id: String,
    items: Vec<TimelineEntry>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Happened)]
pub struct TimelineEntry {
    at: Time,
    /// `accepted`, `scheduled`, `claimed`, `called`, `answered`, `not_called`, `lost`, `retry`, `receipt`, `fallback`,
    /// `event` or `webhook`. Later versions may add words.
    what: &'static str,
    /// The delivery that the entry is about; null if it is about the message as a whole. For a webhook: the webhook's
    /// own deliveryId.
    delivery_id: Option<String>,
    /// The attempt of that delivery.
    attempt: Option<i16>,
    /// Webhooks only: the endpoint that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    endpoint_id: Option<String>,
    /// Webhooks only: the event that it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = EventWord, required = false)]
    event: Option<String>,
    /// Webhooks only: when the next attempt may begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_attempt_at: Option<Time>,
    /// A sentence for people; it may change.
    detail: String,
}

#[utoipa::path(get, path = "/v1/messages/{id}/timeline", operation_id = "getTimeline", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId")),
    responses((status = 200, description = "the timeline", body = Timeline)))]
/// A message's timeline
///
/// Everything that happened to the message, with the reasons, oldest first.
pub async fn timeline(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = message_id(&id)?;
    let owner = reader.owner_of_message(&hub, id).await?;
    let entries = story::timeline(&hub, &owner, id).await?;
    let entry = |e: story::TimelineEntry| {
        let (endpoint_id, event) = e.webhook.map(|w| (w.endpoint_id, w.event)).unzip();
        TimelineEntry {
            at: Time(e.at),
            what: e.kind,
            delivery_id: e.delivery.map(|(message_id, no)| format!("{message_id}-{no}")),
            attempt: e.attempt,
            endpoint_id,
            event,
            next_attempt_at: e.next_at.map(Time),
            detail: e.text,
        }
    };
    let items = entries.into_iter().map(entry).collect();
    Ok(respond(StatusCode::OK, &Timeline { code: Success::Success, message_id: id.to_string(), items }))
}

/// The result of a cancellation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canceled {
    code: Success,
    message_id: String,
    /// The number of deliveries that are CANCELED now.
    canceled: usize,
    /// The number of deliveries that a worker is sending: each ends CANCELED unless the call in flight succeeds.
    cancel_requested: usize,
    deliveries: Vec<Delivery>,
}

#[utoipa::path(post, path = "/v1/messages/{id}/cancel", operation_id = "cancelMessage", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId")),
    responses((status = 200, description = "the deliveries after the cancellation", body = Canceled)))]
/// Cancel a message
///
/// Cancels the deliveries that were not sent yet. Canceling again changes nothing.
pub async fn cancel(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = message_id(&id)?;
    let owner = reader.owner_of_message(&hub, id).await?;
    let rows = flow::delivery::cancel::cancel(&hub, reader.actor().cancel_permit(&owner)?, id).await?;
    let events = webhook_events(&hub, &rows).await?;
    let body = Canceled {
        code: Success::Success,
        message_id: id.to_string(),
        canceled: rows.iter().filter(|r| r.status == Status::Canceled).count(),
        cancel_requested: rows.iter().filter(|r| r.cancel_requested && !r.status.is_settled()).count(),
        deliveries: rows.iter().map(|row| Delivery::of(row, None, &events)).collect(),
    };
    Ok(respond(StatusCode::OK, &body))
}
