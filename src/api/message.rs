//! Messages: their outside shapes and handlers.

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
    ChannelWord, DeliveryStatus, EventWord, MessageStatus, PriorityWord, message_filter, message_id, metadata,
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

/// A message that was stored, or would be stored.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum AcceptedOrDry {
    Accepted(MessageAccepted),
    Dry(DryRun),
}

/// Post a message
///
/// Stored with its deliveries when this answers, and sent by a worker afterwards. The same clientMsgId (or
/// `Idempotency-Key`) with the same message answers 200 with the first result, also when its times are over or the partner
/// may no longer send over the channel; with another message 409. A dry run does not look for the key.
#[utoipa::path(post, path = "/v1/messages", operation_id = "postMessage", tag = "messages",
    security(("bearer" = [])),
    params(
        ("dryRun" = Option<bool>, Query, description = "true: check and show what would be sent, store nothing"),
        IdempotencyKeyHeader,
    ),
    request_body = form::NewMessage,
    responses(
        (status = 202, description = "stored", body = MessageAccepted,
            headers(("Location", description = "the message"))),
        (status = 200, description = "stored before (`Idempotent-Replayed: true`), or a dry run", body = AcceptedOrDry),
    ))]
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

/// The header `Idempotency-Key`, which `apply_key` reads.
pub enum IdempotencyKeyHeader {}

impl IntoParams for IdempotencyKeyHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
            .min_length(Some(1))
            .max_length(Some(limits::CLIENT_MSG_ID_CHARS))
            .pattern(Some("^[!-~]+$"));
        let about = "The same as `clientMsgId`, for clients that have no place for it in the body.";
        let header = ParameterBuilder::new().name("Idempotency-Key").parameter_in(ParameterIn::Header);
        vec![header.required(Required::False).description(Some(about)).schema(Some(text)).build()]
    }
}

/// `Idempotency-Key` means the same as `clientMsgId`; both given must agree.
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

/// 202 for new, 200 for a repeated request.
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

/// A message that is stored.
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

/// What would be sent, and to whom.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    code: Success,
    /// Always true.
    dry_run: bool,
    client_msg_id: Option<String>,
    deliveries: Vec<DryDelivery>,
    /// Each content once: a body for ten thousand recipients is one body.
    contents: Vec<DryContent>,
}

#[derive(Serialize, ToSchema)]
pub struct DryDelivery {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    to: String,
    #[schema(value_type = DeliveryStatus)]
    status: &'static str,
    /// Which of the contents, from 0.
    content: i16,
    /// The same as it will be kept: a phone number as E.164.
    recipient: String,
}

#[derive(Serialize, ToSchema)]
pub struct DryContent {
    /// In how many pieces it goes: its length divided by the limit of its channel. 1 for all that is taken, because a
    /// text that is longer than its channel carries is refused, never split.
    parts: usize,
    /// What it weighs in all.
    bytes: usize,
    subject: Option<String>,
    body: String,
    /// How long the body is for each channel that has a limit.
    lengths: Vec<BodyLength>,
    /// What takes its place if it does not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = FallbackShape, required = false)]
    fallback: Option<FallbackShape>,
}

/// What would happen, without anything happening.
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
    // Each content once: a body for ten thousand recipients is one body.
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

/// How long a body is as a channel counts, and how long it may be.
#[derive(Serialize, ToSchema)]
pub struct BodyLength {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    length: usize,
    limit: usize,
    /// bytes (of CP949, as Korean carriers count) or characters
    unit: &'static str,
}

impl BodyLength {
    fn of(body: &str, channel: Channel, policy: &IntakePolicy) -> Option<BodyLength> {
        let limit = policy.installation.body_limit(channel)?;
        let length = limit.measure.length_of(body).ok()?;
        Some(BodyLength { channel: channel.as_str(), length, limit: limit.max, unit: limit.measure.unit() })
    }
}

/// The messages of a batch, in its order.
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
    /// It was stored before.
    replayed: bool,
}

/// Post a batch
///
/// All of its messages are stored, or none. 200 when all of them were stored before. Each is looked for by its own
/// clientMsgId, before its times, the partner's rights and the size of the batch count.
#[utoipa::path(post, path = "/v1/messages/batch", operation_id = "postBatch", tag = "messages",
    security(("bearer" = [])),
    request_body = form::NewBatch,
    responses(
        (status = 202, description = "stored", body = BatchAccepted),
        (status = 200, description = "all of them were stored before", body = BatchAccepted),
    ))]
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
    // Reading hundreds of messages takes milliseconds: beside the loops, not between them.
    let policy = hub.intake_policy(&caller.partner);
    let mut messages = hub.shutdown.compute(move || crate::model::intake::batch(&body, &policy)).await??;
    let (n, limit) = (messages.len(), caller.partner.rate_limit_tps);
    if i32::try_from(n).unwrap_or(i32::MAX) > limit {
        let detail = format!("is a batch of {n} messages; your limit is {limit} a second: send fewer at once");
        let fault =
            Fault { pointer: "/messages".into(), reason: "batch_size", detail: detail.into(), code: Code::E001 };
        // The limit may have been another when they were stored.
        messages.iter_mut().for_each(|posted| posted.faults_if_new.insert(0, fault.clone()));
    } else {
        // Each message counts; the request has counted for one.
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

/// What a message is, without what became of it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageHead {
    /// 13 characters.
    message_id: String,
    /// Whose it is; told to operators.
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

/// A message with all that is under it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageFound {
    code: Success,
    #[serde(flatten)]
    head: MessageHead,
    /// Some delivery did not succeed, and yet a provider may have taken it.
    possibly_sent: bool,
    /// What goes out, each content once.
    contents: Vec<ContentShape>,
    deliveries: Vec<Delivery>,
    /// Events of this message on their way to endpoints, oldest first; the first thousand.
    webhooks: Vec<MessageWebhook>,
    /// There are more webhooks than `webhooks` lists: `GET /v1/webhooks/{id}/deliveries` lists all of an endpoint.
    more_webhooks: bool,
}

/// One event of a message on its way to one endpoint.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageWebhook {
    /// The webhook's own.
    delivery_id: String,
    endpoint_id: String,
    #[schema(value_type = EventWord)]
    event: String,
    #[schema(value_type = DeliveryStatus)]
    status: &'static str,
    /// When it is tried (again); null when it is not, as soon as it can be, or when the endpoint is resumed.
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

/// What goes out over a channel, as the document tells it: `model::message::Content` is what is written.
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
    /// The template that Kakao approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    template_code: Option<String>,
    /// What takes its place if it does not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fallback: Option<FallbackShape>,
}

/// Another channel that stands by, as the document tells it: `model::message::Fallback` is what is written.
#[derive(Serialize, ToSchema)]
#[schema(as = Fallback)]
#[serde(rename_all = "camelCase")]
pub struct FallbackShape {
    #[schema(value_type = ChannelWord)]
    channel: &'static str,
    /// Which of the contents goes out there, from 0.
    content: i16,
    /// To whom; not given: to the same recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to: Option<String>,
    /// The number of the delivery that takes the place of number n is n + step.
    step: i16,
    /// Seconds after which it takes the place of what was sent, if no receipt says that that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    no_receipt_seconds: Option<u32>,
    /// How often it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<i16>,
    /// It also takes the place of what may have been sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    on_unknown: bool,
}

impl ContentShape {
    /// A webhook's event is left out: it is told beside each delivery, in words of the outside.
    fn of(content: Content) -> ContentShape {
        let Content { subject, body, html, blocks, template_code, event: _, fallback } = content;
        let fallback = fallback.map(|f| FallbackShape::of(*f));
        ContentShape { subject, body, html, blocks, template_code, fallback }
    }
}

impl FallbackShape {
    /// Whether the message or the installation asked for it is not told.
    fn of(fallback: Fallback) -> FallbackShape {
        let Fallback { channel, content, to, step, no_receipt_s, max_attempts: attempts, on_unknown } = fallback;
        let (channel, no_receipt_seconds) = (channel.as_str(), no_receipt_s);
        FallbackShape { channel, content, to, step, no_receipt_seconds, attempts, on_unknown }
    }
}

/// One message
///
/// With its overall status, its deliveries and their attempts, and the webhooks that tell of it.
#[utoipa::path(get, path = "/v1/messages/{id}", operation_id = "getMessage", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId")),
    responses((status = 200, description = "the message", body = MessageFound)))]
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

/// Some delivery did not succeed, and yet a provider may have taken it.
pub fn any_possibly_sent(deliveries: &[DeliveryRow]) -> bool {
    deliveries.iter().any(|d| d.possibly_sent && !d.status.is_success())
}

/// A page of messages that a filter passes, and where the next page begins.
pub struct MessagePageRows {
    pub items: Vec<(Message, OverallStatus, ListedMessage)>,
    pub next: Option<(Tsid, i16)>,
}

/// Walks the list until the page is full. The overall status is computed, so a filter on it looks at more rows than it
/// returns; a page looks at so many at most and may then be short, with a cursor to go on.
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
    /// Give it back as `cursor` for the next page; null on the last. A page may be short and yet have a next one.
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageListed {
    #[serde(flatten)]
    head: MessageHead,
    delivery_count: usize,
}

/// Messages
///
/// A page of them, newest first.
#[utoipa::path(get, path = "/v1/messages", operation_id = "listMessages", tag = "messages",
    security(("bearer" = [])),
    params(
        ("status" = inline(Option<MessageStatus>), Query, description = "those that stand so"),
        ("channel" = inline(Option<ChannelWord>), Query, description = "those with a delivery over this channel"),
        ("type" = Option<String>, Query, description = "those of this type"),
        ("clientMsgId" = Option<String>, Query, description = "the one with this key"),
        ("to" = Option<String>, Query, description = "those to this recipient; a phone number in any form, an e-mail address in any letters"),
        PartnerParam,
        ListParams,
    ),
    responses((status = 200, description = "a page", body = MessagePage)))]
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

/// A message's story, oldest first.
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
    /// accepted, scheduled, claimed, called, answered, not_called, lost, retry, receipt, fallback, event or webhook; others may come.
    what: &'static str,
    /// None: the message as a whole. Of a webhook: its own.
    delivery_id: Option<String>,
    /// Of that delivery.
    attempt: Option<i16>,
    /// Of a webhook: the endpoint it goes to …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    endpoint_id: Option<String>,
    /// … what it tells, …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = EventWord, required = false)]
    event: Option<String>,
    /// … and when it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_attempt_at: Option<Time>,
    /// A sentence for people; may change.
    detail: String,
}

/// A message's story
///
/// Everything that happened to it and why, oldest first.
#[utoipa::path(get, path = "/v1/messages/{id}/timeline", operation_id = "getTimeline", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId")),
    responses((status = 200, description = "the story", body = Timeline)))]
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

/// What a cancellation came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canceled {
    code: Success,
    message_id: String,
    /// Deliveries that are CANCELED now.
    canceled: usize,
    /// Deliveries that a worker holds: each ends canceled if the call in flight does not succeed.
    cancel_requested: usize,
    deliveries: Vec<Delivery>,
}

/// Cancel a message
///
/// Takes back what was not sent yet. Canceling again changes nothing.
#[utoipa::path(post, path = "/v1/messages/{id}/cancel", operation_id = "cancelMessage", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId")),
    responses((status = 200, description = "what could be canceled", body = Canceled)))]
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
