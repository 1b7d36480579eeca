//! Users as their partner manages them, by its own ids: response shapes and handlers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::form::forms;
use super::user::{EMAIL, LOCALE, PHONE, TIME_ZONE, check_image_url, read_form, read_profile};
use crate::error::{Code, Error};
use crate::flow;
use crate::flow::user::profile::ProfileChange;
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::Writer;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::limits;
use crate::model::access::permit::OwnerPermit;
use crate::model::access::token::USER_ACCESS_TTL;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, TextRule};
use crate::model::user::{self, User, UserState};

static UPSERT: Form = Form {
    name: "PartnerUser",
    description: "A user of the partner. Fields that are left out stay as they are; null clears one, except nickname \
        and state.",
    kind: Kind::Object(&[
        Field::optional("nickname", Kind::Text(user::NICKNAME), "By default the partner's own id of the user."),
        Field::optional("picture", Kind::Plain(TextRule::address(user::URL_BYTES)), "An https address."),
        EMAIL,
        PHONE,
        LOCALE,
        TIME_ZONE,
        Field::optional(
            "state",
            Kind::Words(state_words),
            "BLOCKED: the user can neither sign in nor use a token, and its tokens are void.",
        ),
    ]),
    examples: &[],
};

fn state_words() -> Vec<&'static str> {
    vec![UserState::Active.as_str(), UserState::Blocked.as_str()]
}

forms! {
    PartnerUserBody = UPSERT;
}

/// A user as its partner sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = PartnerUserView)]
#[serde(rename_all = "camelCase")]
pub struct PartnerUserShape {
    code: Success,
    user_id: String,
    external_id: Option<String>,
    username: Option<String>,
    nickname: String,
    picture: Option<String>,
    bio: Option<String>,
    email: Option<String>,
    phone: Option<String>,
    locale: Option<String>,
    time_zone: Option<String>,
    /// ACTIVE, BLOCKED or DELETED.
    #[schema(example = "ACTIVE")]
    state: &'static str,
    last_seen_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
}

fn shape(user: &User) -> PartnerUserShape {
    PartnerUserShape {
        code: Success::Success,
        user_id: user.user_id.to_string(),
        external_id: user.external_id.clone(),
        username: user.username.clone(),
        nickname: user.nickname.clone(),
        picture: user.profile_image_url.clone(),
        bio: user.bio.clone(),
        email: user.email.clone(),
        phone: user.phone.clone(),
        locale: user.locale.clone(),
        time_zone: user.time_zone.clone(),
        state: user.state.as_str(),
        last_seen_at: user.last_seen_at.map(Time),
        created_at: Time(user.created_at),
        updated_at: Time(user.updated_at),
    }
}

/// The permit of a partner for its own users. Ids of users are the partner's own, so an admin has no use for these
/// calls.
fn permit(caller: &Writer) -> Result<OwnerPermit<'_>, Error> {
    caller.permit(caller.own_partner()?)
}

#[utoipa::path(put, path = "/v1/users/{externalId}", operation_id = "putPartnerUser", tag = "partner-users",
    security(("bearer" = [])), params(("externalId" = String, Path, description = "your own id of the user, or its \
        userId")), request_body = PartnerUserBody,
    responses((status = 200, description = "the user", body = PartnerUserShape)))]
/// Make or change a user
///
/// Makes the user if it does not exist. No call is needed before a user's first token: it makes the user as well.
pub async fn put(
    State(hub): State<Hub>,
    caller: Writer,
    query: Query,
    PathId(name): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let permit = permit(&caller)?;
    let (change, state) = read_form(&UPSERT, &body, |fields, faults| {
        let profile_image_url = if fields.is_null("picture") {
            fields.take("picture");
            Some(None)
        } else {
            check_image_url(fields, "picture", faults).map(Some)
        };
        let state = fields
            .text("state")
            .and_then(|word| json::one_of::<UserState>(&word, "/state", &state_words(), faults, Code::E001));
        let profile = read_profile(fields, &permit.partner().region, faults);
        (ProfileChange { profile_image_url, ..profile }, state)
    })?;
    let user = flow::user::profile::upsert(&hub, permit, &name, change, state).await?;
    Ok(respond(StatusCode::OK, &shape(&user)))
}

#[utoipa::path(get, path = "/v1/users/{externalId}", operation_id = "getPartnerUser", tag = "partner-users",
    security(("bearer" = [])), params(("externalId" = String, Path, description = "your own id of the user, or its \
        userId")), responses((status = 200, description = "the user", body = PartnerUserShape)))]
/// A user of the partner
///
/// By your own id of the user, or its userId.
pub async fn get(State(hub): State<Hub>, caller: Writer, query: Query, PathId(name): PathId) -> Answer {
    query.close()?;
    let user = flow::user::profile::find(&hub, permit(&caller)?.partner(), &name).await?;
    Ok(respond(StatusCode::OK, &shape(&user)))
}

#[utoipa::path(delete, path = "/v1/users/{externalId}", operation_id = "erasePartnerUser", tag = "partner-users",
    security(("bearer" = [])), params(("externalId" = String, Path, description = "your own id of the user, or its \
        userId")), responses((status = 204, description = "The user is erased.")))]
/// Erase a user
///
/// Removes all that is personal of the user: profile, password, devices and blocks. Its tokens are void. The in-app
/// messages to it are erased within a minute or two, and those that wait are canceled. Messages to its phone number or
/// e-mail address are erased by the hub's operator (`notihub user erase`).
pub async fn erase(State(hub): State<Hub>, caller: Writer, query: Query, PathId(name): PathId) -> Answer {
    query.close()?;
    let permit = permit(&caller)?;
    let user = flow::user::profile::find(&hub, permit.partner(), &name).await?;
    flow::user::leave::erase(&hub, permit, &user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An access token of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = UserToken)]
#[serde(rename_all = "camelCase")]
pub struct UserTokenShape {
    code: Success,
    user_id: String,
    /// The token for `Authorization: Bearer` of the user's requests.
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds for which the access token is valid.
    expires_in: i64,
}

#[utoipa::path(post, path = "/v1/users/{externalId}/token", operation_id = "makeUserToken", tag = "partner-users",
    security(("bearer" = [])), params(("externalId" = String, Path, description = "your own id of the user, or its \
        userId")), responses((status = 200, description = "the token", body = UserTokenShape)))]
/// Make an access token for a user
///
/// For clients to which your server cannot give a token that it signs itself. Makes the user if it does not exist.
pub async fn token(State(hub): State<Hub>, caller: Writer, query: Query, PathId(name): PathId) -> Answer {
    query.close()?;
    let permit = permit(&caller)?;
    let (user, access_token) = flow::user::session::token_for(&hub, permit, &name).await?;
    let body = UserTokenShape {
        code: Success::Success,
        user_id: user.user_id.to_string(),
        access_token,
        token_type: "Bearer",
        expires_in: USER_ACCESS_TTL.num_seconds(),
    };
    Ok(respond(StatusCode::OK, &body))
}
