//! Redrives: dead letters and events sent again. Response shapes and handlers.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::delivery::{Delivery, DeliveryFound, webhook_events};
use super::form::forms;
use super::shape::{ChannelWord, RedriveKindWord, RedriveStatusWord};
use super::webhook::requested_events;
use crate::error::{Code, Error, Refusal};
use crate::flow;
use crate::flow::redrive::{DeadLetterCount, RedriveOrder};
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::{Operator, Reader};
use crate::http::page::{ListParams, Page, PartnerParam, encode_cursor};
use crate::http::problem::ProblemBody;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::delivery::{Status, parse_public_id};
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind, Preset};
use crate::model::json::{self, Faults, TextRule};
use crate::model::redrive::{DEAD_LETTER_STATUSES, JobFilter, RedriveKind};
use crate::store::redrive::{self, RedriveJob};

#[utoipa::path(post, path = "/v1/deliveries/{id}/redrive", operation_id = "redriveDelivery", tag = "redrives",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the delivery after the change", body = DeliveryFound),
        (status = 422, description = "the delivery cannot be sent again", body = ProblemBody,
            content_type = "application/problem+json")))]
/// Redrive one
///
/// Sends a dead letter again: a delivery that is FAILED, or UNDETERMINED if a second copy does no harm. It gets as many
/// attempts as a new delivery and is sent after new deliveries. Operators may redrive any delivery, partners their own
/// webhooks.
pub async fn one(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let (message_id, no) = parse_public_id(&id).ok_or(Error::NotFound)?;
    let owner = reader.owner_of_message(&hub, message_id).await?;
    let row = flow::redrive::redrive_one(&hub, reader.actor().redrive_permit(&owner)?, message_id, no).await?;
    let events = webhook_events(&hub, std::slice::from_ref(&row)).await?;
    let delivery =
        Delivery { partner_id: reader.partner_id_for_staff(row.partner_id), ..Delivery::of(&row, None, &events) };
    Ok(respond(StatusCode::OK, &DeliveryFound { code: Success::Success, delivery }))
}

/// A job that sends dead letters or events again at a limited rate, after new deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redrive {
    redrive_id: String,
    #[schema(value_type = RedriveKindWord)]
    kind: &'static str,
    /// The partner's id; null when the redrive covers all partners. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<String>,
    /// The endpoint that the job is limited to; null: all.
    endpoint_id: Option<String>,
    filter: RedriveFilter,
    rate_per_second: i32,
    #[schema(value_type = RedriveStatusWord)]
    status: &'static str,
    /// The number of dead letters when the job began; null if they were too many to count. Events are not counted.
    count: Option<i64>,
    /// The number that was queued again so far. At the end it is less than `count` if some were handled meanwhile, or
    /// their content had been erased.
    done: i64,
    /// The client that began the job. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<String>,
    created_at: Time,
    finished_at: Option<Time>,
}

/// The dead letters or events that a job covers.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveFilter {
    #[schema(value_type = Option<ChannelWord>)]
    channel: Option<&'static str>,
    provider: Option<String>,
    error: Option<String>,
    status: Option<&'static str>,
    events: Option<Vec<String>>,
    since: Option<Time>,
    until: Time,
}

/// One job.
#[derive(Serialize, ToSchema)]
pub struct RedriveFound {
    code: Success,
    #[serde(flatten)]
    redrive: Redrive,
}

/// A job that has begun.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveBegun {
    code: Success,
    #[serde(flatten)]
    redrive: Redrive,
    /// The number of deliveries that wait for their next attempt, in addition to the dead letters: a recovery sends
    /// them at once. Null for other jobs.
    waiting: Option<i64>,
    /// True if `count` or `waiting` is a lower bound, because counting stopped at a limit.
    count_is_lower_bound: bool,
}

/// The number of dead letters that a job would redrive.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveCount {
    code: Success,
    count: i64,
    /// True if `count` is a lower bound, because counting stopped at a limit.
    count_is_lower_bound: bool,
}

fn shape(job: RedriveJob, is_staff: bool) -> Redrive {
    Redrive {
        redrive_id: job.redrive_id.to_string(),
        kind: job.kind.as_str(),
        partner_id: job.partner_id.filter(|_| is_staff).map(|id| id.to_string()),
        endpoint_id: job.endpoint_id.map(|id| id.to_string()),
        filter: RedriveFilter {
            channel: job.filter.channel.map(Channel::as_str),
            provider: job.filter.provider,
            error: job.filter.error,
            status: job.filter.status.map(Status::as_str),
            events: job.filter.events,
            since: job.filter.since.map(Time),
            until: Time(job.filter.until),
        },
        rate_per_second: job.rate_per_second,
        status: job.status.as_str(),
        count: job.expected,
        done: job.done,
        requested_by: Some(job.requested_by).filter(|_| is_staff),
        created_at: Time(job.created_at),
        finished_at: job.finished_at.map(Time),
    }
}

fn accepted_job(job: RedriveJob, counted: Option<DeadLetterCount>, is_staff: bool) -> Response {
    let location = format!("/v1/redrives/{}", job.redrive_id);
    let redrive = Redrive { count: counted.map(|c| c.count), ..shape(job, is_staff) };
    let count_is_lower_bound = counted.is_some_and(|c| c.more);
    let waiting = counted.and_then(|c| c.waiting);
    let body = RedriveBegun { code: Success::Success, redrive, waiting, count_is_lower_bound };
    let mut response = respond(StatusCode::ACCEPTED, &body);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

static ORDER: Form = Form {
    name: "RedriveOrder",
    description: "The dead letters to redrive, and the rate.",
    kind: Kind::Object(&[
        Field::optional("filter", Kind::Form(&FILTER), "Left out: all dead letters."),
        Field::optional("dryRun", Kind::Flag, "Only count the dead letters.").with_default(Preset::Flag(false)),
        RATE,
    ]),
    examples: &[],
};

static FILTER: Form = Form {
    name: "RedriveOrderFilter",
    description: "Only dead letters that meet every condition given.",
    kind: Kind::Object(&[
        Field::optional("partnerId", Kind::Plain(WORD), "Only dead letters of this partner.").with_pattern(ID_PATTERN),
        Field::optional("channel", Kind::Word("ChannelWord", WORD), ""),
        Field::optional("provider", Kind::Text(WORD), "Only dead letters whose last attempt used this provider."),
        Field::optional("error", Kind::Text(WORD), "Only dead letters with this reason."),
        Field::optional("status", Kind::Plain(WORD), "FAILED or UNDETERMINED.").with_pattern("^(FAILED|UNDETERMINED)$"),
        Field::optional("endpointId", Kind::Plain(WORD), "Only webhooks for this endpoint.").with_pattern(ID_PATTERN),
        Field::optional("since", Kind::Time, "Only those that failed at this time or later; RFC 3339 with offset."),
        Field::optional("until", Kind::Time, "Only those that failed before this time; RFC 3339 with offset."),
    ]),
    examples: &[],
};

static RECOVER: Form = Form {
    name: "RecoverOrder",
    description: "The time window of a recovery, and its rate.",
    kind: Kind::Object(&[
        Field::required(
            "since",
            Kind::Time,
            "Webhooks that failed at this time or later, and waiting ones first sent since; RFC 3339 with offset.",
        ),
        Field::optional(
            "until",
            Kind::Time,
            "Only webhooks that failed, or were first sent and wait, before this time; RFC 3339 with offset. Left \
                out: now.",
        ),
        RATE,
    ]),
    examples: &[],
};

static REPLAY: Form = Form {
    name: "ReplayOrder",
    description: "The events to send again: their time window and kinds, and the rate.",
    kind: Kind::Object(&[
        Field::required("since", Kind::Time, "Events that happened at this time or later; RFC 3339 with offset."),
        Field::optional(
            "until",
            Kind::Time,
            "Only events that happened before this time; RFC 3339 with offset. Left out: now.",
        ),
        Field::optional(
            "events",
            Kind::List(&Kind::Plain(WORD), None, None),
            "Only these of the events that the endpoint subscribes to. Left out: all of them.",
        ),
        RATE,
    ]),
    examples: &[],
};

forms! {
    OrderBody = ORDER;
    RecoverBody = RECOVER;
    ReplayBody = REPLAY;
}

const WORD: TextRule = TextRule::line(limits::NAME_CHARS);
const ID_PATTERN: &str = "^[0-7][0-9A-HJKMNP-TV-Z]{12}$";
const RATE: Field = Field::optional("ratePerSecond", Kind::Int32(1, limits::REDRIVE_RATE_MOST), "")
    .with_default(Preset::Whole(limits::REDRIVE_RATE_DEFAULT as i64));

#[utoipa::path(post, path = "/v1/dead-letters/redrive", operation_id = "redriveDeadLetters", tag = "redrives",
    security(("bearer" = [])), request_body = OrderBody,
    responses((status = 202, description = "the job", body = RedriveBegun),
        (status = 200, description = "with `dryRun`: the number of dead letters", body = RedriveCount),
        (status = 404, description = "there is no such partner", body = ProblemBody,
            content_type = "application/problem+json")))]
/// Redrive many
///
/// Begins a job that redrives all dead letters that pass the filter. With `dryRun` it only counts them.
pub async fn dead_letters(
    State(hub): State<Hub>,
    Operator(actor): Operator,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let (order, dry_run) = read_form(&ORDER, &body, |fields, faults| {
        let dry_run = fields.flag("dryRun").unwrap_or(false);
        let rate_per_second = read_rate(fields);
        let filter = fields.take("filter").map(|value| Fields::open(&FILTER, value, "/filter", faults));
        let nothing = || Fields::open(&FILTER, serde_json::json!({}), "/filter", faults);
        let mut filter = filter.unwrap_or_else(nothing)?;
        let (partner_id, endpoint_id) =
            (read_id(&mut filter, "partnerId", faults), read_id(&mut filter, "endpointId", faults));
        let (channel_at, status_at) = (filter.pointer_to("channel"), filter.pointer_to("status"));
        let channel = filter
            .text("channel")
            .and_then(|text| json::one_of(&text, &channel_at, &CHANNELS.map(Channel::as_str), faults, Code::E005));
        let status = filter.text("status").and_then(|text| {
            let dead = DEAD_LETTER_STATUSES.into_iter().find(|status| status.as_str() == text);
            if dead.is_none() {
                faults.add(status_at, "enum", "is neither FAILED nor UNDETERMINED");
            }
            dead
        });
        let (provider, error) = (filter.text("provider"), filter.text("error"));
        let (since, until) = read_window(&mut filter, &hub, faults);
        filter.close();
        let filter = JobFilter { channel, provider, error, status, events: None, since, until };
        let kind = RedriveKind::Redrive;
        Some((RedriveOrder { kind, partner_id, endpoint_id, filter, rate_per_second }, dry_run))
    })?;
    if dry_run {
        let DeadLetterCount { count, more, .. } = flow::redrive::count(&hub, actor.operator_permit()?, &order).await?;
        let body = RedriveCount { code: Success::Success, count, count_is_lower_bound: more };
        return Ok(respond(StatusCode::OK, &body));
    }
    let (job, counted) = flow::redrive::begin(&hub, actor.operator_permit()?, order).await?;
    Ok(accepted_job(job, Some(counted), true))
}

fn read_form<T>(
    form: &'static Form,
    body: &[u8],
    read: impl FnOnce(&mut Fields<'_>, &Faults) -> Option<T>,
) -> Result<T, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let found = Fields::open(form, value, "", &faults).and_then(|mut fields| {
        let found = read(&mut fields, &faults);
        fields.close();
        found
    });
    faults.into_result(found)
}

fn read_rate(fields: &mut Fields<'_>) -> i32 {
    let given = fields.number("ratePerSecond");
    given.and_then(|n| i32::try_from(n).ok()).unwrap_or(limits::REDRIVE_RATE_DEFAULT)
}

fn read_id(fields: &mut Fields<'_>, name: &str, faults: &Faults) -> Option<Tsid> {
    let pointer = fields.pointer_to(name);
    let text = fields.text(name)?;
    let id = text.parse().ok();
    if id.is_none() {
        faults.add(pointer, "id_invalid", "is not an id: 13 characters");
    }
    id
}

/// Reads `since` and `until`; a missing `until` is now. Both must not be in the future, and `since` must be earlier.
fn read_window(fields: &mut Fields<'_>, hub: &Hub, faults: &Faults) -> (Option<DateTime<Utc>>, DateTime<Utc>) {
    let now = hub.clock.now();
    let places = [fields.pointer_to("since"), fields.pointer_to("until")];
    let (since, until) = (fields.time("since"), fields.time("until"));
    for (time, place) in [since, until].into_iter().zip(&places) {
        if time.is_some_and(|time| time > now) {
            faults.add(place, "time_range", "must not be in the future");
        }
    }
    // A delivery that fails at this very moment belongs to the window.
    let until = until.unwrap_or(now + TimeDelta::microseconds(1));
    if since.is_some_and(|since| since >= until && since <= now) {
        faults.add(&places[0], "time_range", "must be before until");
    }
    (since, until)
}

/// Reads a window like [`read_window`]; `since` must also be within the retention.
fn read_retained_window(fields: &mut Fields<'_>, hub: &Hub, faults: &Faults) -> (Option<DateTime<Utc>>, DateTime<Utc>) {
    let place = fields.pointer_to("since");
    let (since, until) = read_window(fields, hub, faults);
    let days = hub.settings.database.retention_days;
    if since.is_some_and(|since| since < hub.clock.now() - TimeDelta::days(i64::from(days))) {
        faults.add(place, "time_range", format!("must be within the last {days} days: older deliveries are not kept"));
    }
    (since, until)
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/recover", operation_id = "recoverWebhook", tag = "redrives",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    request_body = RecoverBody, responses((status = 202, description = "the job", body = RedriveBegun)))]
/// Recover an endpoint
///
/// Sends the webhooks to this endpoint that failed in the window again, with the same events and ids. Webhooks that
/// wait for their next attempt are sent at once; if that attempt fails, their further attempts and pauses are
/// unchanged.
pub async fn recover(
    State(hub): State<Hub>,
    reader: Reader,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let read = read_form(&RECOVER, &body, |fields, faults| {
        let rate_per_second = read_rate(fields);
        let (since, until) = read_retained_window(fields, &hub, faults);
        Some((JobFilter { since, ..until_only(until) }, rate_per_second))
    });
    begin_for_endpoint(&hub, &reader, &id, RedriveKind::Recover, read).await
}

#[utoipa::path(post, path = "/v1/webhooks/{id}/replay", operation_id = "replayWebhook", tag = "redrives",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    request_body = ReplayBody, responses((status = 202, description = "the job", body = RedriveBegun)))]
/// Replay to an endpoint
///
/// Sends the events of the window that the endpoint subscribes to again, whether or not they were delivered before,
/// with the same ids.
pub async fn replay(
    State(hub): State<Hub>,
    reader: Reader,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let read = read_form(&REPLAY, &body, |fields, faults| {
        let rate_per_second = read_rate(fields);
        let events = requested_events(fields).map(|all| all.into_iter().map(|kind| kind.as_str().to_owned()).collect());
        let (since, until) = read_retained_window(fields, &hub, faults);
        Some((JobFilter { since, events, ..until_only(until) }, rate_per_second))
    });
    begin_for_endpoint(&hub, &reader, &id, RedriveKind::Replay, read).await
}

fn until_only(until: DateTime<Utc>) -> JobFilter {
    JobFilter { channel: None, provider: None, error: None, status: None, events: None, since: None, until }
}

async fn begin_for_endpoint(
    hub: &Hub,
    reader: &Reader,
    id: &str,
    kind: RedriveKind,
    read: Result<(JobFilter, i32), Refusal>,
) -> Answer {
    let endpoint_id: Tsid = id.parse().map_err(|_| Error::NotFound)?;
    let partner_id = reader.own_partner_id();
    let (filter, rate_per_second) = read?;
    let (job, counted) =
        flow::redrive::begin_for_endpoint(hub, reader.actor(), partner_id, endpoint_id, |endpoint| RedriveOrder {
            kind,
            partner_id: Some(endpoint.partner_id),
            endpoint_id: Some(endpoint_id),
            filter,
            rate_per_second,
        })
        .await?;
    Ok(accepted_job(job, counted, partner_id.is_none()))
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedrivePage {
    code: Success,
    items: Vec<Redrive>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/v1/redrives", operation_id = "listRedrives", tag = "redrives", security(("bearer" = [])),
    params(PartnerParam, ListParams),
    responses((status = 200, description = "a page", body = RedrivePage)))]
/// Jobs
///
/// A page of jobs, newest first. Partners see their own jobs, operators see all.
pub async fn list(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let scope = reader.scope(&hub, &mut query).await?;
    let page = Page::read(&mut query, &hub, "redrives", scope.cursor_owner)?;
    query.close()?;
    let partner_id = Some(scope.cursor_owner).filter(|whose| *whose != Tsid(0));
    let below = page.after.map_or(page.below, |after| after.0.min(page.below));
    let own = !reader.sees_all();
    let mut rows = redrive::list(hub.store.api(), partner_id, own, (below, page.from), page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next =
        rows.last().filter(|_| more).map(|r| encode_cursor(&hub, "redrives", scope.cursor_owner, (r.redrive_id, 0)));
    let items = rows.into_iter().map(|job| shape(job, reader.sees_all())).collect();
    Ok(respond(StatusCode::OK, &RedrivePage { code: Success::Success, items, next_cursor: next }))
}

#[utoipa::path(get, path = "/v1/redrives/{id}", operation_id = "getRedrive", tag = "redrives",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the redriveId")),
    responses((status = 200, description = "the job", body = RedriveFound)))]
/// One job
///
/// The job and its progress.
pub async fn get(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id: Tsid = id.parse().map_err(|_| Error::NotFound)?;
    let partner_id = reader.own_partner_id();
    let job = redrive::get(hub.store.api(), id, partner_id).await?.ok_or(Error::NotFound)?;
    let redrive = shape(job, partner_id.is_none());
    Ok(respond(StatusCode::OK, &RedriveFound { code: Success::Success, redrive }))
}

#[utoipa::path(post, path = "/v1/redrives/{id}/cancel", operation_id = "cancelRedrive", tag = "redrives",
    security(("bearer" = [])), params(("id" = String, Path, description = "the redriveId")),
    responses((status = 200, description = "the job after the change", body = RedriveFound)))]
/// Cancel a job
///
/// Stops the job. Deliveries that it has queued are still sent. A job that has ended stays as it is.
pub async fn cancel(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id: Tsid = id.parse().map_err(|_| Error::NotFound)?;
    let partner_id = reader.own_partner_id();
    let job = flow::redrive::cancel(&hub, reader.actor(), partner_id, id).await?;
    let redrive = shape(job, partner_id.is_none());
    Ok(respond(StatusCode::OK, &RedriveFound { code: Success::Success, redrive }))
}
