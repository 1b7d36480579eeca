//! Sign-up, sign-in, refresh and sign-out of users: response shapes and handlers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::envelope::{Envelope, enveloped};
use super::form::forms;
use super::user::{BIO, PASSWORD, UserShape, check_email, check_image_url, check_length, private};
use crate::error::Refusal;
use crate::flow;
use crate::flow::sign_in::unauthenticated;
use crate::flow::user::session::UserTokens;
use crate::flow::user::sign_up::NewUser;
use crate::http::answer::Answer;
use crate::http::caller::{BearerText, PartnerName, RequestOrigin};
use crate::http::query::Query;
use crate::http::request::JsonBody;
use crate::hub::Hub;
use crate::limits;
use crate::model::access::password::PASSWORD_CHARS;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, Faults, TextRule};
use crate::model::user::{self, USERNAME_CHARS};

static SIGN_UP: Form = Form {
    name: "SignUp",
    description: "A new user.",
    kind: Kind::Object(&[
        Field::required("username", Kind::Text(TextRule::line(*USERNAME_CHARS.end())), "The name to sign in with.")
            .with_length(Some(*USERNAME_CHARS.start()), None)
            .with_pattern("^[A-Za-z0-9._-]+$")
            .with_example("kim.minsu"),
        Field::required("password", Kind::Text(PASSWORD), "Neither the username nor a common password.")
            .with_length(Some(*PASSWORD_CHARS.start()), None)
            .with_example("correct horse battery staple"),
        Field::required("nickname", Kind::Text(user::NICKNAME), "The name that others see.").with_example("김민수"),
        Field::optional("email", Kind::Plain(TextRule::address(limits::EMAIL_BYTES)), ""),
        Field::optional("bio", Kind::Text(BIO), ""),
        Field::optional("profileImageUrl", Kind::Plain(TextRule::address(user::URL_BYTES)), "An https address."),
    ]),
    examples: &[],
};

static LOGIN: Form = Form {
    name: "Login",
    description: "The name and password of a user.",
    kind: Kind::Object(&[
        // Longer texts than any user has are refused with the same answer as a wrong password.
        Field::required("username", Kind::Plain(TextRule::line(limits::SECRET_CHARS)), "")
            .with_length(None, Some(*USERNAME_CHARS.end())),
        Field::required("password", Kind::Plain(TextRule::line(limits::SECRET_CHARS)), "")
            .with_length(None, Some(*PASSWORD_CHARS.end())),
    ]),
    examples: &[],
};

static REFRESH: Form = Form {
    name: "UserRefresh",
    description: "The refresh token. It may stand in `Authorization: Bearer` instead, without a body.",
    kind: Kind::Object(&[
        Field::optional("refreshToken", Kind::Plain(SECRET), "").with_length(None, Some(limits::SECRET_CHARS))
    ]),
    examples: &[],
};

static LOGOUT: Form = Form {
    name: "Logout",
    description: "The refresh token of the sign-in that ends. It may stand in `Authorization: Bearer` instead.",
    kind: Kind::Object(&[
        Field::optional("refreshToken", Kind::Plain(SECRET), "").with_length(None, Some(limits::SECRET_CHARS)),
        Field::optional("everywhere", Kind::Flag, "True: all sign-ins of the user end."),
    ]),
    examples: &[],
};

const SECRET: TextRule = TextRule::line(limits::SECRET_CHARS).as_posted();

forms! {
    SignUpBody = SIGN_UP;
    LoginBody = LOGIN;
    UserRefreshBody = REFRESH;
    LogoutBody = LOGOUT;
}

/// The tokens of a user's sign-in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSignedIn {
    user_id: String,
    /// The token for `Authorization: Bearer`.
    access_token: String,
    /// The token for `POST /api/v1/auth/refresh`. It is valid once and for 30 days; each refresh returns a new one.
    refresh_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds for which the access token is valid.
    expires_in: i64,
}

fn signed_in(hub: &Hub, tokens: UserTokens) -> Response {
    let body = UserSignedIn {
        user_id: tokens.user_id.to_string(),
        access_token: tokens.access,
        refresh_token: tokens.refresh,
        token_type: "Bearer",
        expires_in: tokens.expires_in_s,
    };
    enveloped(hub, StatusCode::OK, body)
}

fn read_sign_up(body: &[u8]) -> Result<NewUser, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Fields::open(&SIGN_UP, value, "", &faults).and_then(|mut fields| {
        let username = fields.text("username");
        if username.as_ref().is_some_and(|name| !user::is_username(name)) {
            let detail = "must be 3 to 30 of the characters a-z, A-Z, 0-9, dot, underscore and hyphen";
            faults.add("/username", "username_invalid", detail);
        }
        let password = fields.text("password");
        check_length(password.as_deref(), "/password", &faults);
        let nickname = fields.text("nickname");
        let email = check_email(&mut fields, &faults);
        let bio = fields.text("bio");
        let profile_image_url = check_image_url(&mut fields, "profileImageUrl", &faults);
        fields.close();
        Some(NewUser { username: username?, password: password?, nickname: nickname?, email, bio, profile_image_url })
    });
    faults.into_result(read)
}

#[utoipa::path(post, path = "/api/v1/auth/signup", operation_id = "signUpUser", tag = "user-sign-in",
    params(("X-Partner" = Option<String>, Header, description = "name or id of the service that the user belongs to; \
        without it that of the hub's settings, or the only one that takes sign-ups")),
    request_body = SignUpBody, responses((status = 201, description = "the user", body = Envelope<UserShape>)))]
/// Sign up
///
/// Makes a user with a password, where an admin has allowed it (`notihub partner set NAME --sign-up true`). At most ten
/// users an hour may sign up from one address.
pub async fn sign_up(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    PartnerName(partner): PartnerName,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let new = read_sign_up(&body)?;
    let user = flow::user::sign_up::sign_up(&hub, partner.as_deref(), new, &from).await?;
    Ok(enveloped(&hub, StatusCode::CREATED, private(&user)))
}

#[utoipa::path(post, path = "/api/v1/auth/login", operation_id = "signInUser", tag = "user-sign-in",
    params(("X-Partner" = Option<String>, Header, description = "name or id of the service that the user belongs to; \
        without it that of the hub's settings, or the only one that takes sign-ups")),
    request_body = LoginBody, responses((status = 200, description = "tokens", body = Envelope<UserSignedIn>)))]
/// Sign in as a user
///
/// Exchanges a user's name and password for tokens. After five failures in a row the user waits for a second, and twice
/// as long after each further one, up to a quarter of an hour; even the right password is refused meanwhile.
pub async fn login(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    PartnerName(partner): PartnerName,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let faults = Faults::default();
    let value = json::parse(&body, &faults)?;
    let read = Fields::open(&LOGIN, value, "", &faults).and_then(|mut fields| {
        let read = (fields.text("username"), fields.text("password"));
        fields.close();
        Some((read.0?, read.1?))
    });
    let (username, password) = faults.into_result(read)?;
    let tokens = flow::user::sign_in::sign_in(&hub, partner.as_deref(), &username, password, &from).await?;
    Ok(signed_in(&hub, tokens))
}

/// The refresh token and `everywhere` of a body that may be missing; the token may be in the header instead.
fn read_token(
    form: &'static Form,
    body: Option<JsonBody<{ limits::SMALL_BODY_BYTES }>>,
    bearer: Option<String>,
) -> Result<(String, bool), crate::error::Error> {
    let (mut token, mut everywhere) = (None, false);
    if let Some(JsonBody(body)) = body {
        let faults = Faults::default();
        let value = json::parse(&body, &faults)?;
        let read = Fields::open(form, value, "", &faults).map(|mut fields| {
            token = fields.text("refreshToken");
            if form.field("everywhere").is_some() {
                everywhere = fields.flag("everywhere").unwrap_or_default();
            }
            fields.close();
        });
        faults.into_result(read)?;
    }
    let missing = || unauthenticated("send the refresh token as refreshToken, or as Authorization: Bearer");
    Ok((token.or(bearer).ok_or_else(missing)?, everywhere))
}

#[utoipa::path(post, path = "/api/v1/auth/refresh", operation_id = "refreshUser", tag = "user-sign-in",
    request_body = Option<UserRefreshBody>,
    responses((status = 200, description = "tokens", body = Envelope<UserSignedIn>)))]
/// Refresh a user's sign-in
///
/// Exchanges a refresh token for new tokens. A refresh token is valid once. If it is used a second time, it or its
/// successor was stolen: the sign-in ends, with its access tokens.
pub async fn refresh(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    BearerText(bearer): BearerText,
    query: Query,
    body: Option<JsonBody<{ limits::SMALL_BODY_BYTES }>>,
) -> Answer {
    query.close()?;
    let (token, _) = read_token(&REFRESH, body, bearer)?;
    let tokens = flow::user::session::refresh(&hub, &token, &from).await?;
    Ok(signed_in(&hub, tokens))
}

#[utoipa::path(post, path = "/api/v1/auth/logout", operation_id = "signOutUser", tag = "user-sign-in",
    request_body = Option<LogoutBody>, responses((status = 204, description = "The sign-in has ended.")))]
/// Sign out
///
/// Ends the sign-in of a refresh token, with its access tokens; with `everywhere` all sign-ins of the user, and tokens
/// that its service signed before. Every process of the hub follows within ten seconds.
pub async fn logout(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    BearerText(bearer): BearerText,
    query: Query,
    body: Option<JsonBody<{ limits::SMALL_BODY_BYTES }>>,
) -> Answer {
    query.close()?;
    let (token, everywhere) = read_token(&LOGOUT, body, bearer)?;
    flow::user::session::end(&hub, &token, everywhere, &from).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
