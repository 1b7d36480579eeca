//! Sign-in, refresh and revocation of tokens: response shapes and handlers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::form::forms;
use crate::error::Refusal;
use crate::flow;
use crate::flow::sign_in::Tokens;
use crate::http::answer::{Answer, Success, respond};
use crate::http::caller::RequestOrigin;
use crate::http::query::Query;
use crate::http::request::JsonBody;
use crate::hub::Hub;
use crate::limits;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, Faults, TextRule};

static SIGN_IN: Form = Form {
    name: "SignIn",
    description: "The credentials of a client.",
    kind: Kind::Object(&[
        // Longer texts than any key has are refused with the same answer as a wrong secret.
        Field::required(
            "clientId",
            Kind::Plain(SECRET),
            "The client id that `notihub partner create` or an admin \
            issued.",
        )
        .with_length(None, Some(limits::NAME_CHARS)),
        Field::required("clientSecret", Kind::Plain(SECRET), "").with_length(None, Some(limits::SECRET_CHARS)),
    ]),
    examples: &[],
};

static REFRESH: Form = Form {
    name: "Refresh",
    description: "",
    kind: Kind::Object(&[
        Field::required("refreshToken", Kind::Plain(SECRET), "").with_length(None, Some(limits::SECRET_CHARS))
    ]),
    examples: &[],
};

forms! {
    SignInBody = SIGN_IN;
    RefreshBody = REFRESH;
}

const SECRET: TextRule = TextRule::line(limits::SECRET_CHARS).as_posted();

/// The tokens of a sign-in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    code: Success,
    /// The token for `Authorization: Bearer`.
    access_token: String,
    /// The token for `POST /v1/auth/refresh`. It is valid once and for 30 days; each refresh returns a new one.
    refresh_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds for which the access token is valid.
    expires_in: i64,
}

fn tokens_response(tokens: Tokens) -> Response {
    let body = SignedIn {
        code: Success::Success,
        access_token: tokens.access,
        refresh_token: tokens.refresh,
        token_type: "Bearer",
        expires_in: tokens.expires_in_s,
    };
    respond(StatusCode::OK, &body)
}

#[utoipa::path(post, path = "/v1/auth/token", operation_id = "signIn", tag = "sign-in", request_body = SignInBody,
    responses((status = 200, description = "tokens", body = SignedIn)))]
/// Sign in
///
/// Exchanges a client's secret for tokens. After ten failures for one client within a minute, over all processes and
/// addresses, even the right secret is refused for a while. Addresses where the client holds a refresh token are
/// counted separately, so that no other caller can lock the client out there. After a hundred failures from one address
/// (IPv6: one /64) at one process, all sign-ins from there are refused for a while.
pub async fn token(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let [client_id, client_secret] = read_texts(&SIGN_IN, &body, ["clientId", "clientSecret"])?;
    Ok(tokens_response(flow::sign_in::sign_in(&hub, &client_id, &client_secret, &from).await?))
}

#[utoipa::path(post, path = "/v1/auth/refresh", operation_id = "refresh", tag = "sign-in", request_body = RefreshBody,
    responses((status = 200, description = "tokens", body = SignedIn)))]
/// Refresh
///
/// Exchanges a refresh token for new tokens. A refresh token is valid once. If it is used a second time, it or its
/// successor was stolen: all refresh tokens of that sign-in are then void. The limit of failures for an address applies
/// here; the limit for a client does not.
pub async fn refresh(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let [token] = read_texts(&REFRESH, &body, ["refreshToken"])?;
    Ok(tokens_response(flow::sign_in::refresh(&hub, &token, &from).await?))
}

#[utoipa::path(post, path = "/v1/auth/revoke", operation_id = "revoke", tag = "sign-in", request_body = RefreshBody,
    responses((status = 204, description = "The token is void, if it existed.")))]
/// Revoke
///
/// Voids a refresh token and all others of the same sign-in. Access tokens that were already issued stay valid until
/// they expire, at most a day.
pub async fn revoke(
    State(hub): State<Hub>,
    RequestOrigin(from): RequestOrigin,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let [token] = read_texts(&REFRESH, &body, ["refreshToken"])?;
    flow::sign_in::revoke(&hub, &token, &from).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Reads a body with the required texts `names`, in that order.
fn read_texts<const N: usize>(form: &'static Form, body: &[u8], names: [&str; N]) -> Result<[String; N], Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Fields::open(form, value, "", &faults).map(|mut fields| {
        let texts = names.map(|name| fields.text(name).unwrap_or_default());
        fields.close();
        texts
    });
    faults.into_result(read)
}
