//! Dead letters tried again, and events told again: outside shapes and handlers.

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

/// Redrive one
///
/// A dead letter (FAILED; or UNDETERMINED, where a second copy does no harm) is tried again, as often as a new one, after what
/// is new. Operators may redrive any; partners their own webhooks.
#[utoipa::path(post, path = "/v1/deliveries/{id}/redrive", operation_id = "redriveDelivery", tag = "redrives",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the delivery as it stands now", body = DeliveryFound),
        (status = 422, description = "it cannot be tried again", body = ProblemBody,
            content_type = "application/problem+json")))]
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

/// A job that goes on at a bounded rate, after whatever is new.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redrive {
    redrive_id: String,
    #[schema(value_type = RedriveKindWord)]
    kind: &'static str,
    /// Whose dead letters or events; null: everybody's. Told to operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<String>,
    /// Of this endpoint alone.
    endpoint_id: Option<String>,
    filter: RedriveFilter,
    rate_per_second: i32,
    #[schema(value_type = RedriveStatusWord)]
    status: &'static str,
    /// How many dead letters there were when it began; null where they were too many to count. Events are not counted.
    count: Option<i64>,
    /// How many were redriven, hastened, or told again, so far. Less than `count` in the end where some were dealt with meanwhile, or
    /// nothing was left of what they said.
    done: i64,
    /// Who asked for it; told to operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<String>,
    created_at: Time,
    finished_at: Option<Time>,
}

/// Which dead letters, or events, a job is of.
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

/// A job alone.
#[derive(Serialize, ToSchema)]
pub struct RedriveFound {
    code: Success,
    #[serde(flatten)]
    redrive: Redrive,
}

/// A job that begins.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveBegun {
    code: Success,
    #[serde(flatten)]
    redrive: Redrive,
    /// How many wait for their next try, beside the dead letters: a recovery hastens them. Null for other jobs.
    waiting: Option<i64>,
    /// There are more than `count`, or `waiting`: they were not counted to the end.
    count_is_lower_bound: bool,
}

/// What a job would redrive.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveCount {
    code: Success,
    count: i64,
    /// There are more: they were not counted to the end.
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
    description: "Which dead letters to redrive, how fast, or only how many there are.",
    kind: Kind::Object(&[
        Field::optional("filter", Kind::Form(&FILTER), "Left out: all there are."),
        Field::optional("dryRun", Kind::Flag, "Only count them.").with_default(Preset::Flag(false)),
        RATE,
    ]),
    examples: &[],
};

static FILTER: Form = Form {
    name: "RedriveOrderFilter",
    description: "What is left out passes all.",
    kind: Kind::Object(&[
        Field::optional("partnerId", Kind::Plain(WORD), "Those of this partner.").with_pattern(ID_PATTERN),
        Field::optional("channel", Kind::Word("ChannelWord", WORD), ""),
        Field::optional("provider", Kind::Text(WORD), "Those this provider was asked for last."),
        Field::optional("error", Kind::Text(WORD), "Those with this reason."),
        Field::optional("status", Kind::Plain(WORD), "FAILED or UNDETERMINED.").with_pattern("^(FAILED|UNDETERMINED)$"),
        Field::optional("endpointId", Kind::Plain(WORD), "Webhooks for this endpoint.").with_pattern(ID_PATTERN),
        Field::optional("since", Kind::Time, "Those that failed at this time or later; RFC 3339 with offset."),
        Field::optional("until", Kind::Time, "Those that failed before this time; RFC 3339 with offset."),
    ]),
    examples: &[],
};

static RECOVER: Form = Form {
    name: "RecoverOrder",
    description: "Since when.",
    kind: Kind::Object(&[
        Field::required(
            "since",
            Kind::Time,
            "What failed, or was told first and waits, at this time or later; RFC 3339 with offset.",
        ),
        Field::optional(
            "until",
            Kind::Time,
            "What failed, or was told first and waits, before this time; RFC 3339 with offset. Left out: up to now.",
        ),
        RATE,
    ]),
    examples: &[],
};

static REPLAY: Form = Form {
    name: "ReplayOrder",
    description: "Which events of which time.",
    kind: Kind::Object(&[
        Field::required("since", Kind::Time, "What happened at this time or later; RFC 3339 with offset."),
        Field::optional(
            "until",
            Kind::Time,
            "What happened before this time; RFC 3339 with offset. Left out: up to now.",
        ),
        Field::optional(
            "events",
            Kind::List(&Kind::Plain(WORD), None, None),
            "Of what the endpoint asks for only these. Left out: all of it.",
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

/// Redrive many
///
/// Dead letters that pass the filter, each as one alone. `dryRun` tells how many there are.
#[utoipa::path(post, path = "/v1/dead-letters/redrive", operation_id = "redriveDeadLetters", tag = "redrives",
    security(("bearer" = [])), request_body = OrderBody,
    responses((status = 202, description = "the job", body = RedriveBegun),
        (status = 200, description = "with `dryRun`: how many", body = RedriveCount),
        (status = 404, description = "there is no such partner", body = ProblemBody,
            content_type = "application/problem+json")))]
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

/// `since` and `until`, the latter now if it is not given: neither is ahead, and the first comes first.
fn read_window(fields: &mut Fields<'_>, hub: &Hub, faults: &Faults) -> (Option<DateTime<Utc>>, DateTime<Utc>) {
    let now = hub.clock.now();
    let places = [fields.pointer_to("since"), fields.pointer_to("until")];
    let (since, until) = (fields.time("since"), fields.time("until"));
    for (time, place) in [since, until].into_iter().zip(&places) {
        if time.is_some_and(|time| time > now) {
            faults.add(place, "time_range", "must not be in the future");
        }
    }
    // What dies at this very moment did so before the job.
    let until = until.unwrap_or(now + TimeDelta::microseconds(1));
    if since.is_some_and(|since| since >= until && since <= now) {
        faults.add(&places[0], "time_range", "must be before until");
    }
    (since, until)
}

/// As `window`, with a beginning that the books still reach.
fn read_retained_window(fields: &mut Fields<'_>, hub: &Hub, faults: &Faults) -> (Option<DateTime<Utc>>, DateTime<Utc>) {
    let place = fields.pointer_to("since");
    let (since, until) = read_window(fields, hub, faults);
    let days = hub.settings.database.retention_days;
    if since.is_some_and(|since| since < hub.clock.now() - TimeDelta::days(i64::from(days))) {
        faults.add(place, "time_range", format!("must be within the last {days} days: what is older is not kept"));
    }
    (since, until)
}

/// Recover an endpoint
///
/// What failed on its way there since then is sent again: the same events under the same ids. What waits for its next try
/// does not wait any longer; if that fails, it has as many left, and pauses as long, as it would have had.
#[utoipa::path(post, path = "/v1/webhooks/{id}/recover", operation_id = "recoverWebhook", tag = "redrives",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    request_body = RecoverBody, responses((status = 202, description = "the job", body = RedriveBegun)))]
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

/// Replay to an endpoint
///
/// What happened in that time and what the endpoint asks for is told to it again, whether or not it was told before: the same
/// events under the same ids.
#[utoipa::path(post, path = "/v1/webhooks/{id}/replay", operation_id = "replayWebhook", tag = "redrives",
    security(("bearer" = [])), params(("id" = String, Path, description = "the endpointId")),
    request_body = ReplayBody, responses((status = 202, description = "the job", body = RedriveBegun)))]
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
    /// Give it back as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Jobs
///
/// A page of them, newest first: a partner's own, or for operators all.
#[utoipa::path(get, path = "/v1/redrives", operation_id = "listRedrives", tag = "redrives", security(("bearer" = [])),
    params(PartnerParam, ListParams),
    responses((status = 200, description = "a page", body = RedrivePage)))]
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

/// A job
///
/// How far it is.
#[utoipa::path(get, path = "/v1/redrives/{id}", operation_id = "getRedrive", tag = "redrives", security(("bearer" = [])),
    params(("id" = String, Path, description = "the redriveId")),
    responses((status = 200, description = "the job", body = RedriveFound)))]
pub async fn get(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id: Tsid = id.parse().map_err(|_| Error::NotFound)?;
    let partner_id = reader.own_partner_id();
    let job = redrive::get(hub.store.api(), id, partner_id).await?.ok_or(Error::NotFound)?;
    let redrive = shape(job, partner_id.is_none());
    Ok(respond(StatusCode::OK, &RedriveFound { code: Success::Success, redrive }))
}

/// Cancel a job
///
/// It goes no further; what it did so far stays done. One that ended before stays as it is.
#[utoipa::path(post, path = "/v1/redrives/{id}/cancel", operation_id = "cancelRedrive", tag = "redrives",
    security(("bearer" = [])), params(("id" = String, Path, description = "the redriveId")),
    responses((status = 200, description = "the job as it stands now", body = RedriveFound)))]
pub async fn cancel(State(hub): State<Hub>, reader: Reader, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id: Tsid = id.parse().map_err(|_| Error::NotFound)?;
    let partner_id = reader.own_partner_id();
    let job = flow::redrive::cancel(&hub, reader.actor(), partner_id, id).await?;
    let redrive = shape(job, partner_id.is_none());
    Ok(respond(StatusCode::OK, &RedriveFound { code: Success::Success, redrive }))
}
