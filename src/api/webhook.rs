//! Endpoints, which receive webhooks: response shapes and handlers. Partners manage their own endpoints; operators may
//! read all, admins may change all.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse as _;
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::form::forms;
use super::shape::{DeliveryStatus, EndpointWord, EventWord};
use crate::error::{Code, Error, Refusal, Result};
use crate::flow;
use crate::flow::endpoint::{EndpointEdit, HealthSummary, OVERLAP, OVERLAP_MOST};
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::{Reader, Writer};
use crate::http::page::{ListParams, Page, PartnerParam, encode_cursor};
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::OwnerPermit;
use crate::model::delivery::{READY_WHEN_RESUMED, STATUSES, Status};
use crate::model::egress;
use crate::model::endpoint::{self, Endpoint, EndpointStatus};
use crate::model::event::{EVENT_KINDS, EventKind};
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind, Preset};
use crate::model::intake::is_mailbox;
use crate::model::json::{self, Faults, TextRule};
use crate::store;
use crate::store::delivery::{WebhookCall, WebhookFilter, WebhookRow};

/// An endpoint: where a partner receives its events.
#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
#[serde(rename_all = "camelCase")]
pub struct EndpointShape {
    /// 13 characters.
    endpoint_id: String,
    /// The id of the partner that owns it. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<String>,
    url: String,
    description: Option<String>,
    /// The events that the endpoint subscribes to; null: all, including kinds that later versions add.
    #[schema(value_type = Option<Vec<EventWord>>)]
    events: Option<Vec<String>>,
    #[schema(value_type = EndpointWord)]
    status: &'static str,
    /// The reason for the status DISABLED: `gone` (it answered 410), `failing` (only failures for days) or `paused`
    /// (for thirty days).
    disabled_reason: Option<String>,
    /// True if the events of one message are sent one after the other, in order.
    ordered: bool,
    /// True if events carry the content of the message.
    include_content: bool,
    /// The e-mail address that is informed when the endpoint is disabled.
    contact_email: Option<String>,
    /// The names of the additional headers of each request. Their values cannot be read again.
    headers: Vec<String>,
    /// The time until which requests are also signed with the former secret, during a rotation.
    former_secret_good_until: Option<Time>,
    /// The time since which all attempts have failed; null while the endpoint works.
    failing_since: Option<Time>,
    last_success_at: Option<Time>,
    last_failure_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
}

impl EndpointShape {
    fn of(e: &Endpoint, hub: &Hub, partner_id: Option<String>) -> EndpointShape {
        let now = hub.clock.now();
        EndpointShape {
            endpoint_id: e.endpoint_id.to_string(),
            partner_id,
            url: e.url.clone(),
            description: e.description.clone(),
            events: e.events.clone(),
            status: e.status.as_str(),
            disabled_reason: e.disabled_reason.clone(),
            ordered: e.ordered,
            include_content: e.include_content,
            contact_email: e.contact_email.clone(),
            headers: e.headers.keys().cloned().collect(),
            former_secret_good_until: e.previous_secret.as_ref().map(|f| f.1).filter(|until| *until > now).map(Time),
            failing_since: e.failing_since.map(Time),
            last_success_at: e.last_success_at.map(Time),
            last_failure_at: e.last_failure_at.map(Time),
            created_at: Time(e.created_at),
            updated_at: Time(e.updated_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct EndpointFound {
    code: Success,
    #[serde(flatten)]
    endpoint: EndpointShape,
}

/// An endpoint with its secret, which is only in this answer.
#[derive(Serialize, ToSchema)]
pub struct EndpointMade {
    code: Success,
    #[serde(flatten)]
    endpoint: EndpointShape,
    /// The secret that requests are signed with: `whsec_` and base64. It cannot be read again.
    secret: String,
}

static NEW_ENDPOINT: Form = Form {
    name: "NewEndpoint",
    description: "A new endpoint.",
    kind: Kind::Object(&[
        Field::required("url", URL, "An https URL with a public address or name, on port 443, 80, or 1024 and above."),
        EVENTS,
        Field::optional("description", DESCRIPTION, ""),
        Field::optional(
            "ordered",
            Kind::Flag,
            "true: events of one message are sent one after the other. Default: false.",
        ),
        Field::optional(
            "includeContent",
            Kind::Flag,
            "true: events carry the content of the message. The partner needs the capability `webhook_content`.",
        ),
        Field::optional("contactEmail", EMAIL, ""),
        HEADERS,
    ]),
    examples: &[r#"{"url": "https://orders.example.com/hooks/notihub",
        "events": ["delivery.delivered", "delivery.failed"], "description": "orders"}"#],
};

static ENDPOINT_CHANGE: Form = Form {
    name: "EndpointChange",
    description: "A change of an endpoint. Fields that are left out stay as they are.",
    kind: Kind::Object(&[
        Field::optional("url", URL, ""),
        EVENTS,
        Field::optional("description", DESCRIPTION, "null removes it."),
        Field::optional(
            "status",
            Kind::Plain(TextRule::line(32)),
            "PAUSED: events wait; a DISABLED endpoint cannot be paused. ACTIVE: events are sent again, those that \
                waited \
             included; this also ends DISABLED.",
        ),
        Field::optional("ordered", Kind::Flag, ""),
        Field::optional("includeContent", Kind::Flag, ""),
        Field::optional("contactEmail", EMAIL, "null removes it."),
        HEADERS,
    ]),
    examples: &[],
};

static ENDPOINT_ROTATION: Form = Form {
    name: "EndpointRotation",
    description: "",
    kind: Kind::Object(&[Field::optional(
        "overlapSeconds",
        Kind::Int64(0, OVERLAP_MOST.num_seconds()),
        "Seconds for which requests are also signed with the former secret: at most a week. 0: only the new one.",
    )
    .with_default(Preset::Whole(OVERLAP.num_seconds()))]),
    examples: &[],
};

forms! {
    NewEndpoint = NEW_ENDPOINT;
    EndpointChange = ENDPOINT_CHANGE;
    EndpointRotation = ENDPOINT_ROTATION;
}

const URL: Kind = Kind::Text(TextRule::line(egress::URL_BYTES).as_posted());
const DESCRIPTION: Kind = Kind::Text(TextRule::line(limits::ENDPOINT_DESCRIPTION_CHARS));
const EMAIL: Kind = Kind::Text(TextRule::line(limits::EMAIL_BYTES));
const EVENTS: Field = Field::optional(
    "events",
    Kind::List(&Kind::Words(requestable_events), Some(1), None),
    "the events that the endpoint subscribes to; null, or left out at creation: all, including kinds that later \
        versions add",
);
const HEADERS: Field = Field::optional(
    "headers",
    Kind::Texts(limits::ENDPOINT_HEADER_VALUE_BYTES),
    "additional headers of every request, such as Authorization; at most 10, and they replace all former ones. Headers \
     that frame a request or belong to the signature are refused. Values are visible ASCII and cannot be read again",
);

/// The events that an endpoint can subscribe to.
fn requestable_events() -> Vec<&'static str> {
    EVENT_KINDS.into_iter().filter(|kind| kind.is_subscribable()).map(EventKind::as_str).collect()
}

/// An event that an endpoint can subscribe to.
struct RequestableEvent(EventKind);

impl std::str::FromStr for RequestableEvent {
    type Err = ();
    fn from_str(text: &str) -> Result<RequestableEvent, ()> {
        text.parse().ok().filter(|kind: &EventKind| kind.is_subscribable()).map(RequestableEvent).ok_or(())
    }
}

/// A status that the owner of an endpoint may set.
struct SettableStatus(EndpointStatus);

impl std::str::FromStr for SettableStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<SettableStatus, ()> {
        match text.parse() {
            Ok(status @ (EndpointStatus::Active | EndpointStatus::Paused)) => Ok(SettableStatus(status)),
            _ => Err(()),
        }
    }
}

/// Reads the body of a request that makes (`new`) or changes an endpoint. Collects all faults.
fn read_form(hub: &Hub, permit: OwnerPermit<'_>, body: &[u8], new: bool) -> Result<EndpointEdit, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let form = if new { &NEW_ENDPOINT } else { &ENDPOINT_CHANGE };
    let read = Fields::open(form, value, "", &faults).map(|fields| read_change(hub, permit, fields, new, &faults));
    faults.into_result(read)
}

fn read_change(hub: &Hub, permit: OwnerPermit<'_>, mut fields: Fields<'_>, new: bool, faults: &Faults) -> EndpointEdit {
    let url = fields.text("url").and_then(|url| {
        let parsed = egress::parse_url(&url, &hub.settings.webhooks.rules());
        parsed.map_err(|forbidden| faults.add("/url", forbidden.reason, forbidden.detail)).ok()
    });
    let status = if new { None } else { fields.text("status") };
    let status: Option<SettableStatus> =
        status.and_then(|word| json::one_of(&word, "/status", &["ACTIVE", "PAUSED"], faults, Code::E001));
    let include_content = fields.flag("includeContent");
    if include_content == Some(true)
        && let Err(fault) = flow::endpoint::may_include_content(permit)
    {
        faults.add(fault.pointer, fault.reason, fault.detail);
    }
    let change = EndpointEdit {
        url,
        events: nullable(&mut fields, "events", |fields| read_events(fields, faults)),
        description: nullable(&mut fields, "description", |fields| fields.text("description")),
        status: status.map(|wanted| wanted.0),
        ordered: fields.flag("ordered"),
        include_content,
        contact_email: nullable(&mut fields, "contactEmail", |fields| {
            let address = fields.text("contactEmail")?;
            let right = is_mailbox(&address);
            if !right {
                faults.add("/contactEmail", "recipient_invalid", "is not an e-mail address: name@example.com");
            }
            right.then_some(address)
        }),
        headers: nullable(&mut fields, "headers", |fields| read_headers(fields, faults)).map(Option::unwrap_or_default),
    };
    fields.close();
    change
}

/// The change of a field that null removes: `None` when the field is left out, `Some(None)` for null.
fn nullable<'f, T>(
    fields: &mut Fields<'f>,
    name: &str,
    read: impl FnOnce(&mut Fields<'f>) -> Option<T>,
) -> Option<Option<T>> {
    let is_null = fields.is_null(name);
    let value = read(fields);
    (is_null || value.is_some()).then_some(value)
}

/// Takes `events`, each of which must be one that endpoints can subscribe to. None if the field is missing or has a
/// fault.
pub fn requested_events(fields: &mut Fields<'_>) -> Option<Vec<EventKind>> {
    let asked: Vec<RequestableEvent> = fields.words("events", &requestable_events())?;
    Some(asked.into_iter().map(|kind| kind.0).collect())
}

fn read_events(fields: &mut Fields<'_>, faults: &Faults) -> Option<Vec<EventKind>> {
    let asked = requested_events(fields)?;
    if asked.is_empty() && faults.is_empty() {
        faults.add("/events", "empty", "must name an event; null stands for all");
    }
    // Each event once, in the order of the model.
    Some(EVENT_KINDS.into_iter().filter(|kind| asked.contains(kind)).collect())
}

fn read_headers(fields: &mut Fields<'_>, faults: &Faults) -> Option<BTreeMap<String, String>> {
    let given = match fields.take("headers")? {
        Value::Object(given) => given,
        other => {
            json::mismatch(faults, "/headers", "an object", &other);
            return None;
        }
    };
    if given.len() > limits::ENDPOINT_HEADERS {
        let detail = format!("has {} headers; at most {} are sent", given.len(), limits::ENDPOINT_HEADERS);
        faults.add("/headers", "too_many_items", detail);
    }
    let mut read = BTreeMap::new();
    for (name, value) in given {
        let pointer = json::child_pointer("/headers", &name);
        let Value::String(value) = value else {
            json::mismatch(faults, &pointer, "a text", &value);
            continue;
        };
        match endpoint::check_header(&name, &value) {
            Ok(name) if read.contains_key(&name) => {
                faults.add(
                    pointer,
                    "duplicate_key",
                    "is given twice: names that differ only in case are the same header",
                );
            }
            Ok(name) => drop(read.insert(name, value)),
            Err((reason, detail)) => faults.add(pointer, reason, detail),
        }
    }
    Some(read)
}

fn endpoint_id(text: &str) -> Result<Tsid> {
    text.parse().map_err(|_| Error::NotFound)
}

#[utoipa::path(post, path = "/v1/webhooks", operation_id = "createWebhook", tag = "webhooks",
    security(("bearer" = [])), params(PartnerParam), request_body = NewEndpoint,
    responses((status = 201, description = "the endpoint; its secret is only in this answer", body = EndpointMade,
        headers(("Location", description = "the endpoint")))))]
/// Make an endpoint
///
/// Makes an endpoint and its secret, which is only in this answer. A partner may have 20 endpoints.
pub async fn create(
    State(hub): State<Hub>,
    writer: Writer,
    mut query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    let partner = writer.partner_of_list(&hub, &mut query).await?;
    query.close()?;
    let permit = writer.permit(&partner)?;
    let change = read_form(&hub, permit, &body, true)?;
    let made = flow::endpoint::create(&hub, permit, change).await?;
    let endpoint = EndpointShape::of(&made, &hub, writer.partner_id_for_staff(made.partner_id));
    let mut response =
        respond(StatusCode::CREATED, &EndpointMade { code: Success::Success, endpoint, secret: made.secret });
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/webhooks/{}", made.endpoint_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A page of endpoints, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPage {
    code: Success,
    items: Vec<EndpointShape>,
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/v1/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    security(("bearer" = [])), params(PartnerParam, ListParams),
    responses((status = 200, description = "a page", body = EndpointPage)))]
/// Endpoints
///
/// A page of endpoints, newest first.
pub async fn list(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let scope = reader.scope(&hub, &mut query).await?;
    // The partner's look-back in days limits messages only; endpoints are visible however old.
    let page = Page::read(&mut query, &hub, "webhooks", scope.cursor_owner)?;
    query.close()?;
    let below = page.after.map_or(page.below, |after| after.0.min(page.below));
    let (db, window) = (hub.store.api(), (below, page.from));
    let mut found = store::endpoint::list(db, &hub.keyring, &scope.partners, window, page.limit + 1).await?;
    let more = found.len() as i64 > page.limit;
    found.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next_cursor =
        found.last().filter(|_| more).map(|e| encode_cursor(&hub, "webhooks", scope.cursor_owner, (e.endpoint_id, 0)));
    let items = found.iter().map(|e| EndpointShape::of(e, &hub, reader.partner_id_for_staff(e.partner_id))).collect();
    Ok(respond(StatusCode::OK, &EndpointPage { code: Success::Success, items, next_cursor }))
}

/// Reads an endpoint that the caller may see.
async fn find_endpoint(hub: &Hub, reader: &Reader, id: &str) -> Result<Endpoint> {
    let id = endpoint_id(id)?;
    let owner = reader.owner_of_endpoint(hub, id).await?;
    let found = store::endpoint::get(hub.store.api(), &hub.keyring, owner.partner_id, owner.shard, id).await?;
    found.ok_or(Error::NotFound)
}

#[utoipa::path(get, path = "/v1/webhooks/{id}", operation_id = "getWebhook", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    responses((status = 200, description = "the endpoint", body = EndpointFound)))]
/// One endpoint
///
/// The endpoint without its secret, which cannot be read again.
pub async fn get(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let found = find_endpoint(&hub, &reader, &id).await?;
    let endpoint = EndpointShape::of(&found, &hub, reader.partner_id_for_staff(found.partner_id));
    Ok(respond(StatusCode::OK, &EndpointFound { code: Success::Success, endpoint }))
}

#[utoipa::path(patch, path = "/v1/webhooks/{id}", operation_id = "updateWebhook", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    request_body = EndpointChange, responses((status = 200, description = "the endpoint", body = EndpointFound)))]
/// Change an endpoint
///
/// Fields that are left out stay as they are. Waiting webhooks are sent to the URL that is set at the time of sending.
pub async fn update(
    State(hub): State<Hub>,
    writer: Writer,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let id = endpoint_id(&id)?;
    let partner = writer.owner_of_endpoint(&hub, id).await?;
    let permit = writer.permit(&partner)?;
    let change = read_form(&hub, permit, &body, false)?;
    let changed = flow::endpoint::update(&hub, permit, id, change).await?;
    let endpoint = EndpointShape::of(&changed, &hub, writer.partner_id_for_staff(changed.partner_id));
    Ok(respond(StatusCode::OK, &EndpointFound { code: Success::Success, endpoint }))
}

#[utoipa::path(delete, path = "/v1/webhooks/{id}", operation_id = "deleteWebhook", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    responses((status = 204, description = "Deleted.")))]
/// Delete an endpoint
///
/// Deletes the endpoint. Its unsent webhooks are canceled.
pub async fn delete(State(hub): State<Hub>, writer: Writer, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = endpoint_id(&id)?;
    let partner = writer.owner_of_endpoint(&hub, id).await?;
    flow::endpoint::delete(&hub, writer.permit(&partner)?, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn read_overlap(body: &[u8]) -> Result<TimeDelta, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Fields::open(&ENDPOINT_ROTATION, value, "", &faults).map(|mut fields| {
        let seconds = fields.number("overlapSeconds");
        fields.close();
        seconds.map_or(OVERLAP, TimeDelta::seconds)
    });
    faults.into_result(read)
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate", operation_id = "rotateWebhook", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    request_body = Option<EndpointRotation>,
    responses((status = 200, description = "the endpoint; its secret is only in this answer", body = EndpointMade)))]
/// Rotate an endpoint's secret
///
/// Makes a new secret, which is only in this answer. During the overlap `webhook-signature` has an entry for each of
/// the two secrets; `X-Signature` is made with the former secret and `X-Signature-Next` with the new one. The body may
/// be left out.
pub async fn rotate(
    State(hub): State<Hub>,
    writer: Writer,
    query: Query,
    PathId(id): PathId,
    body: Option<JsonBody<{ limits::SMALL_BODY_BYTES }>>,
) -> Answer {
    query.close()?;
    let overlap = body.map_or(Ok(OVERLAP), |JsonBody(body)| read_overlap(&body))?;
    let id = endpoint_id(&id)?;
    let partner = writer.owner_of_endpoint(&hub, id).await?;
    let made = flow::endpoint::rotate(&hub, writer.permit(&partner)?, id, overlap).await?;
    let endpoint = EndpointShape::of(&made, &hub, writer.partner_id_for_staff(made.partner_id));
    Ok(respond(StatusCode::OK, &EndpointMade { code: Success::Success, endpoint, secret: made.secret }))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointTested {
    code: Success,
    /// The delivery of the test event: `GET /v1/deliveries/{id}` shows its outcome.
    delivery_id: String,
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/test", operation_id = "testWebhook", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    responses((status = 202, description = "the test event is queued", body = EndpointTested),
        (status = 422, description = "the endpoint is not active", body = crate::http::problem::ProblemBody,
            content_type = "application/problem+json")))]
/// Test an endpoint
///
/// Sends the event `endpoint.test` to the endpoint, whatever it subscribes to. The endpoint must be ACTIVE.
pub async fn test(State(hub): State<Hub>, writer: Writer, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = endpoint_id(&id)?;
    let partner = writer.owner_of_endpoint(&hub, id).await?;
    let delivery_id = flow::endpoint::send_test(&hub, writer.permit(&partner)?, id).await?;
    Ok(respond(StatusCode::ACCEPTED, &EndpointTested { code: Success::Success, delivery_id }))
}

/// A webhook: one event for one endpoint.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDelivery {
    delivery_id: String,
    /// The event's id, sent as `webhook-id`; the same in every attempt. Null if the event was erased.
    event_id: Option<String>,
    #[schema(value_type = EventWord)]
    event: String,
    /// The messageId that the event is about; null if it is about no message.
    about: Option<String>,
    #[schema(value_type = DeliveryStatus)]
    status: &'static str,
    /// The reason for the status: one of the `deliveryReasons` of `GET /v1/errors`.
    reason: Option<String>,
    /// The number of calls made for it.
    attempts: i64,
    last_attempt: Option<EndpointCall>,
    /// When the next attempt may begin. Null if no attempt follows, or if it begins as soon as possible.
    next_attempt_at: Option<Time>,
    /// True if it waits for the endpoint to be resumed.
    parked: bool,
    created_at: Time,
    settled_at: Option<Time>,
}

/// A call to an endpoint, and its response.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCall {
    /// The number of the attempt.
    attempt: i16,
    at: Time,
    ended_at: Option<Time>,
    /// The HTTP status of the response; null if there was none.
    http_status: Option<u16>,
    /// The failure in a word: `http_503`, or the kind of failure if there was no response.
    code: Option<String>,
    /// The reason for the failure: one of the `deliveryReasons` of `GET /v1/errors`.
    reason: Option<String>,
    /// The beginning of the response body.
    detail: Option<String>,
}

impl EndpointCall {
    fn of(call: &WebhookCall) -> EndpointCall {
        // The webhook provider records `http_503` as the code of a refusal, and `HTTP 204` as the reference of a
        // success.
        let refused = call.code.as_deref().and_then(|code| code.strip_prefix("http_"));
        let took = call.provider_ref.as_deref().and_then(|text| text.strip_prefix("HTTP "));
        EndpointCall {
            attempt: call.attempt,
            at: Time(call.called_at),
            ended_at: call.ended_at.map(Time),
            http_status: refused.or(took).and_then(|status| status.parse().ok()),
            code: call.code.clone(),
            reason: call.reason.clone(),
            detail: call.detail.clone(),
        }
    }
}

impl EndpointDelivery {
    fn of(row: &WebhookRow) -> EndpointDelivery {
        let parked = row.status == Status::Scheduled && row.ready_at == READY_WHEN_RESUMED;
        let next = (row.status == Status::Scheduled && row.ready_at < READY_WHEN_RESUMED).then_some(Time(row.ready_at));
        EndpointDelivery {
            delivery_id: format!("{}-{}", row.message_id, row.no),
            event_id: row.event.event_id.clone(),
            event: row.event.event.clone(),
            about: row.event.about.map(|id| id.to_string()),
            status: row.status.as_str(),
            reason: row.reason.clone(),
            attempts: row.calls,
            last_attempt: row.last_call.as_ref().map(EndpointCall::of),
            next_attempt_at: next,
            parked,
            created_at: Time(row.created_at),
            settled_at: row.settled_at.map(Time),
        }
    }
}

/// A page of the webhooks of an endpoint, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDeliveryPage {
    code: Success,
    items: Vec<EndpointDelivery>,
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", operation_id = "listWebhookDeliveries", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId"),
        ("status" = inline(Option<DeliveryStatus>), Query, description = "only webhooks with this status"),
        ("event" = inline(Option<EventWord>), Query, description = "only webhooks with this event"),
        ListParams),
    responses((status = 200, description = "a page", body = EndpointDeliveryPage)))]
/// Webhooks of an endpoint
///
/// Each webhook with its last call, newest first. `status=FAILED` lists the dead letters.
pub async fn deliveries(State(hub): State<Hub>, reader: Reader, mut query: Query, PathId(id): PathId) -> Answer {
    let endpoint = find_endpoint(&hub, &reader, &id).await?;
    let page = Page::read(&mut query, &hub, "webhook-deliveries", endpoint.endpoint_id)?;
    let words = EVENT_KINDS.map(EventKind::as_str).join(", ");
    let event: Option<EventKind> = query.parse("event", &format!("one of {words}"), |text| text.parse().ok())?;
    let statuses = format!("one of {}", STATUSES.map(Status::as_str).join(", "));
    let status = query.parse("status", &statuses, |text| text.parse().ok())?;
    query.close()?;
    let filter = WebhookFilter { status, event: event.map(EventKind::as_str) };
    let below = page.after.map_or(page.below, |after| after.0.min(page.below));
    let (db, window) = (hub.store.api(), (below, page.from));
    let mut rows = store::delivery::of_endpoint(db, &hub.keyring, &endpoint, &filter, window, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next =
        |row: &WebhookRow| encode_cursor(&hub, "webhook-deliveries", endpoint.endpoint_id, (row.message_id, row.no));
    let next_cursor = rows.last().filter(|_| more).map(next);
    let items = rows.iter().map(EndpointDelivery::of).collect();
    Ok(respond(StatusCode::OK, &EndpointDeliveryPage { code: Success::Success, items, next_cursor }))
}

/// The health of an endpoint.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHealth {
    code: Success,
    endpoint_id: String,
    #[schema(value_type = EndpointWord)]
    status: &'static str,
    disabled_reason: Option<String>,
    failing_since: Option<Time>,
    last_success_at: Option<Time>,
    last_failure_at: Option<Time>,
    /// The figures below cover the newest 1,000 webhooks since this time.
    since: Time,
    deliveries: usize,
    /// The share of called webhooks that the endpoint accepted, from 0 to 1; null if it was not called.
    success_rate: Option<f64>,
    delivered: usize,
    /// Webhooks whose calls have failed so far and that are called again.
    failing: usize,
    /// Dead letters: webhooks whose calls failed and that are not called again.
    dead: usize,
    /// Webhooks that are waiting or being sent, including those called again.
    pending: usize,
    /// Webhooks that wait for the endpoint to be resumed.
    parked: usize,
    /// The newest failed webhooks, at most five.
    last_failures: Vec<EndpointDelivery>,
}

#[utoipa::path(get, path = "/v1/webhooks/{id}/health", operation_id = "getWebhookHealth", tag = "webhooks",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    responses((status = 200, description = "the health of the endpoint", body = EndpointHealth)))]
/// Health of an endpoint
///
/// The last day: how many webhooks were accepted, how many wait, and the last failures.
pub async fn health(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let endpoint = find_endpoint(&hub, &reader, &id).await?;
    let health: HealthSummary = flow::endpoint::health(&hub, &endpoint).await?;
    let body = EndpointHealth {
        code: Success::Success,
        endpoint_id: endpoint.endpoint_id.to_string(),
        status: endpoint.status.as_str(),
        disabled_reason: endpoint.disabled_reason,
        failing_since: endpoint.failing_since.map(Time),
        last_success_at: endpoint.last_success_at.map(Time),
        last_failure_at: endpoint.last_failure_at.map(Time),
        since: Time(health.since),
        deliveries: health.deliveries,
        success_rate: health.success_rate(),
        delivered: health.delivered,
        failing: health.failing,
        dead: health.dead,
        pending: health.pending,
        parked: health.parked,
        last_failures: health.failures.iter().map(EndpointDelivery::of).collect(),
    };
    Ok(respond(StatusCode::OK, &body))
}
