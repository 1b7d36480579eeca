//! Partners and their keys, and the keys of operators and admins: response shapes and handlers. For admins.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chrono::TimeDelta;
use serde::Serialize;
use utoipa::ToSchema;

use super::form::forms;
use crate::error::{Refusal, Result};
use crate::flow;
use crate::flow::partner::{Credentials, OVERLAP_MOST, PartnerChange, unknown};
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::Admin;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::role::Role;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, Faults, TextRule};
use crate::model::partner::{Partner, PartnerStatus};
use crate::store::{self, key};

/// A partner: a service that posts messages.
#[derive(Serialize, ToSchema)]
#[schema(as = Partner)]
#[serde(rename_all = "camelCase")]
pub struct PartnerShape {
    code: Success,
    partner_id: String,
    name: String,
    #[schema(example = "ACTIVE")]
    status: &'static str,
    /// Requests a second. A batch counts as many requests as it has messages.
    rate_limit_tps: i32,
    /// Days for which the partner can read its messages. Messages that are not finished stay readable for longer.
    lookup_days: i16,
    /// Days after which the content of messages is erased; null: after the hub's own retention.
    retention_days: Option<i16>,
    /// The time zone by which daily statistics are counted.
    time_zone: String,
    /// The country of phone numbers that are written without one.
    region: String,
    /// The channels that the partner may use; null: all.
    channels: Option<Vec<&'static str>>,
    /// What the partner may do: `schedule` messages, `cancel` them, and receive their content in webhooks
    /// (`webhook_content`).
    capabilities: Vec<&'static str>,
    /// True if the content of its messages is encrypted in the database.
    encrypt_content: bool,
    /// True if people may make a user of this partner for themselves.
    sign_up: bool,
    /// Only in the answer to the creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// Only in the answer to the creation; it cannot be read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

fn shape(p: &Partner, credentials: Option<Credentials>) -> PartnerShape {
    let (client_id, client_secret) = credentials.map(|c| (c.client_id, c.client_secret)).unzip();
    let may = [("schedule", p.may_schedule), ("cancel", p.may_cancel), ("webhook_content", p.may_receive_content)];
    PartnerShape {
        code: Success::Success,
        partner_id: p.partner_id.to_string(),
        name: p.name.clone(),
        status: p.status.as_str(),
        rate_limit_tps: p.rate_limit_tps,
        lookup_days: p.lookup_days,
        retention_days: p.retention_days,
        time_zone: p.time_zone.clone(),
        region: p.region.clone(),
        channels: p.channels.as_ref().map(|all| all.iter().map(|c| c.as_str()).collect()),
        capabilities: may.into_iter().filter(|(_, may)| *may).map(|(word, _)| word).collect(),
        encrypt_content: p.encrypt_content,
        sign_up: p.sign_up,
        client_id,
        client_secret,
    }
}

/// The fields of a new partner, or of a change.
static PARTNER: Form = Form {
    name: "PartnerChange",
    description: "The settings of a partner. A field that is left out has its default at creation, and stays as it is \
        in a \
        change.",
    kind: Kind::Object(&[
        Field::optional("name", Kind::Text(NAME), "Required at creation. Every partner has a different name."),
        Field::optional("status", Kind::Plain(WORD), "").with_example("ACTIVE"),
        Field::optional("rateLimitTps", Kind::Int32(1, limits::PARTNER_TPS_MOST as i64), ""),
        Field::optional("lookupDays", DAYS, ""),
        Field::optional("retentionDays", DAYS, ""),
        Field::optional(
            "timeZone",
            Kind::Plain(NAME),
            "Only at creation, because the statistics of past days depend \
            on it.",
        )
        .with_example("Asia/Seoul"),
        Field::optional("region", Kind::Plain(TextRule::line(2)), "").with_pattern("^[A-Z]{2}$"),
        Field::optional("channels", Kind::List(&Kind::Plain(WORD), None, None), ""),
        Field::optional("capabilities", Kind::List(&Kind::Plain(WORD), None, None), ""),
        Field::optional("encryptContent", Kind::Flag, ""),
        Field::optional(
            "signUp",
            Kind::Flag,
            "Whether people may make a user of this partner for themselves. False by default.",
        ),
    ]),
    examples: &[],
};

static ROTATION: Form = Form {
    name: "Rotation",
    description: "",
    kind: Kind::Object(&[Field::optional(
        "overlapSeconds",
        Kind::Int64(0, OVERLAP_MOST.num_seconds()),
        "Seconds for which the former secret and its tokens stay valid. 0, the default: they are void at once.",
    )]),
    examples: &[],
};

static NEW_KEY: Form = Form {
    name: "NewKey",
    description: "",
    kind: Kind::Object(&[
        Field::required(
            "role",
            Kind::Plain(WORD),
            "OPERATOR or ADMIN. A partner's key is made together with the \
            partner.",
        )
        .with_example("OPERATOR"),
        Field::required("name", Kind::Text(NAME), "The name of the person or program that uses the key."),
    ]),
    examples: &[],
};

forms! {
    PartnerBody = PARTNER;
    RotationBody = ROTATION;
    NewKeyBody = NEW_KEY;
}

const NAME: TextRule = TextRule::line(limits::NAME_CHARS);
const WORD: TextRule = TextRule::line(32);
const DAYS: Kind = Kind::Int32(1, limits::PARTNER_DAYS_MOST as i64);

#[derive(Clone, Copy, PartialEq)]
enum Capability {
    Schedule,
    Cancel,
    WebhookContent,
}

impl std::str::FromStr for Capability {
    type Err = ();
    fn from_str(text: &str) -> Result<Capability, ()> {
        match text {
            "schedule" => Ok(Capability::Schedule),
            "cancel" => Ok(Capability::Cancel),
            "webhook_content" => Ok(Capability::WebhookContent),
            _ => Err(()),
        }
    }
}

/// Reads the body of a request that makes (`new`) or changes a partner. Collects all faults.
fn read_form(body: &[u8], new: bool) -> Result<PartnerChange, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Fields::open(&PARTNER, value, "", &faults).map(|fields| read_change(fields, new, &faults));
    faults.into_result(read)
}

fn read_change(mut fields: Fields<'_>, new: bool, faults: &Faults) -> PartnerChange {
    let name = if new { fields.require_text("name") } else { fields.text("name") };
    let (status_at, region_at) = (fields.pointer_to("status"), fields.pointer_to("region"));
    let status = fields.text("status");
    let status: Option<PartnerStatus> = status
        .and_then(|word| json::one_of(&word, &status_at, &["ACTIVE", "INACTIVE"], faults, crate::error::Code::E001));
    let region = fields.text("region");
    if region.as_ref().is_some_and(|r| r.len() != 2 || !r.bytes().all(|b| b.is_ascii_uppercase())) {
        faults.add(region_at, "region_invalid", "must be two capital letters, as KR");
    }
    let days = |fields: &mut Fields<'_>, name: &str| fields.number(name).and_then(|n| i16::try_from(n).ok());
    let no_retention = fields.is_null("retentionDays");
    let retention_days = days(&mut fields, "retentionDays");
    let all_channels = fields.is_null("channels");
    let channels: Option<Vec<Channel>> = fields.words("channels", &CHANNELS.map(Channel::as_str));
    let capabilities: Option<Vec<Capability>> =
        fields.words("capabilities", &["schedule", "cancel", "webhook_content"]);
    let may = |what| capabilities.as_ref().map(|all| all.contains(&what));
    let change = PartnerChange {
        name,
        status,
        rate_limit_tps: fields.number("rateLimitTps").and_then(|n| i32::try_from(n).ok()),
        lookup_days: days(&mut fields, "lookupDays"),
        retention_days: (no_retention || retention_days.is_some()).then_some(retention_days),
        time_zone: if new { fields.text("timeZone") } else { None },
        region,
        channels: (all_channels || channels.is_some()).then_some(channels),
        may_schedule: may(Capability::Schedule),
        may_cancel: may(Capability::Cancel),
        may_receive_content: may(Capability::WebhookContent),
        encrypt_content: fields.flag("encryptContent"),
        sign_up: fields.flag("signUp"),
    };
    if !new && fields.has("timeZone") {
        fields.take("timeZone");
        faults.add(
            "/timeZone",
            "not_changeable",
            "is fixed at creation: the statistics of past days are counted by it",
        );
    }
    fields.close();
    change
}

fn partner_id(text: &str) -> Result<Tsid> {
    text.parse().map_err(|_| unknown())
}

#[utoipa::path(post, path = "/v1/partners", operation_id = "createPartner", tag = "partners",
    security(("bearer" = [])), request_body = PartnerBody,
    responses((status = 201, description = "the partner", body = PartnerShape)))]
/// Make a partner
///
/// Makes the partner and its key. The secret is only in this answer and cannot be read again.
pub async fn create(
    State(hub): State<Hub>,
    Admin(actor): Admin,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let change = read_form(&body, true)?;
    let (partner, credentials) = flow::partner::create(&hub, actor.admin_permit()?, change).await?;
    let mut response = respond(StatusCode::CREATED, &shape(&partner, Some(credentials)));
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/partners/{}", partner.partner_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerList {
    code: Success,
    items: Vec<PartnerShape>,
    /// Pass it as `after` to get the next page; null on the last page.
    next_after: Option<String>,
}

#[utoipa::path(get, path = "/v1/partners", operation_id = "listPartners", tag = "partners", security(("bearer" = [])),
    params(("after" = Option<String>, Query, description = "only partners whose name comes after this one"),
        ("limit" = Option<i64>, Query, description = "rows on a page", minimum = 1, maximum = 200)),
    responses((status = 200, description = "a page", body = PartnerList)))]
/// Partners
///
/// A page of partners, ordered by name.
pub async fn list(State(hub): State<Hub>, _admin: Admin, mut query: Query) -> Answer {
    let after = query.take("after");
    let limit = query.limit()?;
    query.close()?;
    let mut partners = store::partner::list(hub.store.api(), after.as_deref(), limit + 1).await?;
    let more = partners.len() as i64 > limit;
    partners.truncate(usize::try_from(limit).unwrap_or(0));
    let next_after = partners.last().filter(|_| more).map(|p| p.name.clone());
    let items = partners.iter().map(|p| shape(p, None)).collect();
    Ok(respond(StatusCode::OK, &PartnerList { code: Success::Success, items, next_after }))
}

#[utoipa::path(get, path = "/v1/partners/{id}", operation_id = "getPartner", tag = "partners",
    security(("bearer" = [])), params(("id" = String, Path, description = "the partnerId")),
    responses((status = 200, description = "the partner", body = PartnerShape)))]
/// One partner
///
/// The partner without its secret, which the hub does not keep.
pub async fn get(State(hub): State<Hub>, _admin: Admin, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let partner = store::partner::get(hub.store.api(), partner_id(&id)?).await?.ok_or_else(unknown)?;
    Ok(respond(StatusCode::OK, &shape(&partner, None)))
}

#[utoipa::path(patch, path = "/v1/partners/{id}", operation_id = "updatePartner", tag = "partners",
    security(("bearer" = [])), params(("id" = String, Path, description = "the partnerId")),
    request_body = PartnerBody, responses((status = 200, description = "the partner", body = PartnerShape)))]
/// Change a partner
///
/// Fields that are left out stay as they are. Setting the status to INACTIVE voids the partner's tokens at once;
/// messages that it posted before are still delivered.
pub async fn update(
    State(hub): State<Hub>,
    Admin(actor): Admin,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let change = read_form(&body, false)?;
    let partner = flow::partner::update(&hub, actor.admin_permit()?, partner_id(&id)?, change).await?;
    Ok(respond(StatusCode::OK, &shape(&partner, None)))
}

/// The credentials that a client signs in with.
#[derive(Serialize, ToSchema)]
#[schema(as = Credentials)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsShape {
    code: Success,
    client_id: String,
    /// Only in this answer; it cannot be read again.
    client_secret: String,
}

fn credentials(status: StatusCode, made: Credentials) -> Response {
    let body =
        CredentialsShape { code: Success::Success, client_id: made.client_id, client_secret: made.client_secret };
    respond(status, &body)
}

fn read_overlap(body: &[u8]) -> Result<TimeDelta, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Fields::open(&ROTATION, value, "", &faults).map(|mut fields| {
        let seconds = fields.number("overlapSeconds").unwrap_or(0);
        fields.close();
        TimeDelta::seconds(seconds)
    });
    faults.into_result(read)
}

#[utoipa::path(post, path = "/v1/partners/{id}/key/rotate", operation_id = "rotatePartnerKey", tag = "partners",
    security(("bearer" = [])), params(("id" = String, Path, description = "the partnerId")),
    request_body = RotationBody,
    responses((status = 200, description = "the credentials; the secret is only in this answer",
        body = CredentialsShape)))]
/// Rotate a partner's key
///
/// Makes a new secret, which is only in this answer. The former secret and its tokens stay valid for the overlap.
pub async fn rotate(
    State(hub): State<Hub>,
    Admin(actor): Admin,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let overlap = read_overlap(&body)?;
    let made = flow::partner::rotate(&hub, actor.admin_permit()?, partner_id(&id)?, overlap).await?;
    Ok(credentials(StatusCode::OK, made))
}

/// A key without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
#[serde(rename_all = "camelCase")]
pub struct KeyShape {
    client_id: String,
    #[schema(example = "OPERATOR")]
    role: &'static str,
    partner_id: Option<String>,
    name: String,
    /// The time until which the former secret is valid, during a rotation.
    former_secret_good_until: Option<Time>,
    revoked_at: Option<Time>,
    created_at: Time,
}

#[derive(Serialize, ToSchema)]
pub struct KeyList {
    code: Success,
    items: Vec<KeyShape>,
}

#[utoipa::path(get, path = "/v1/keys", operation_id = "listKeys", tag = "partners",
    security(("bearer" = [])), responses((status = 200, description = "all keys", body = KeyList)))]
/// Keys
///
/// All keys, without their secrets.
pub async fn keys(State(hub): State<Hub>, _admin: Admin, query: Query) -> Answer {
    query.close()?;
    let items = key::list(hub.store.api()).await?.into_iter().map(|k| KeyShape {
        client_id: k.client_id,
        role: k.role.as_str(),
        partner_id: k.partner_id.map(|id| id.to_string()),
        name: k.name,
        former_secret_good_until: k.former_until.filter(|at| *at > hub.clock.now()).map(Time),
        revoked_at: k.revoked_at.map(Time),
        created_at: Time(k.created_at),
    });
    Ok(respond(StatusCode::OK, &KeyList { code: Success::Success, items: items.collect() }))
}

#[utoipa::path(post, path = "/v1/keys", operation_id = "createKey", tag = "partners",
    security(("bearer" = [])), request_body = NewKeyBody,
    responses((status = 201, description = "the credentials; the secret is only in this answer",
        body = CredentialsShape)))]
/// Make a key
///
/// Makes a key for an operator or an admin. The secret is only in this answer and cannot be read again.
pub async fn create_key(
    State(hub): State<Hub>,
    Admin(actor): Admin,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let faults = Faults::default();
    let value = json::parse(&body, &faults)?;
    let read = Fields::open(&NEW_KEY, value, "", &faults).and_then(|mut fields| {
        let name = fields.text("name");
        let role = fields.text("role").and_then(|word| {
            match json::one_of(&word, "/role", &["OPERATOR", "ADMIN"], &faults, crate::error::Code::E001)? {
                Role::Staff(role) => Some(role),
                Role::Partner => {
                    faults.add(
                        "/role",
                        "enum",
                        "'PARTNER' is none of OPERATOR, ADMIN: a partner's key comes with the partner",
                    );
                    None
                }
            }
        });
        fields.close();
        Some((role?, name?))
    });
    let (role, name) = faults.into_result(read)?;
    let made = flow::partner::create_key(&hub, actor.admin_permit()?, role, &name).await?;
    Ok(credentials(StatusCode::CREATED, made))
}

#[utoipa::path(post, path = "/v1/keys/{id}/rotate", operation_id = "rotateKey", tag = "partners",
    security(("bearer" = [])), params(("id" = String, Path, description = "the clientId")),
    request_body = RotationBody,
    responses((status = 200, description = "the credentials; the secret is only in this answer",
        body = CredentialsShape)))]
/// Rotate a key
///
/// Makes a new secret, which is only in this answer. The former secret and its tokens stay valid for the overlap.
pub async fn rotate_key(
    State(hub): State<Hub>,
    Admin(actor): Admin,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let overlap = read_overlap(&body)?;
    let made = flow::partner::rotate_key(&hub, actor.admin_permit()?, &id, overlap).await?;
    Ok(credentials(StatusCode::OK, made))
}

#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "revokeKey", tag = "partners",
    security(("bearer" = [])), params(("id" = String, Path, description = "the clientId")),
    responses((status = 204, description = "Revoked.")))]
/// Revoke a key
///
/// Voids the key's secrets and tokens at once.
pub async fn revoke_key(State(hub): State<Hub>, Admin(actor): Admin, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    flow::partner::revoke_key(&hub, actor.admin_permit()?, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
