//! Signing in: their outside shapes and handlers.

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
    description: "What a client signs in with.",
    kind: Kind::Object(&[
        // No key has a longer one: it is refused as a wrong one is.
        Field::required("clientId", Kind::Plain(SECRET), "As `notihub partner create` or an admin gave it.")
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

/// Tokens of a sign-in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    code: Success,
    /// For `Authorization: Bearer`.
    access_token: String,
    /// For `POST /v1/auth/refresh`, once: each refresh gives a new one. Good for 30 days.
    refresh_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds the access token is good for.
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

/// Sign in
///
/// A client's secret for tokens. After ten failures of a client within a minute, over all processes and addresses,
/// even the right secret waits; addresses where the client holds a refresh token are counted apart, so that nobody
/// else can lock it out there. After a hundred failures from one address (IPv6: one /64) at one process, all from
/// there wait.
#[utoipa::path(post, path = "/v1/auth/token", operation_id = "signIn", tag = "sign-in", request_body = SignInBody,
    responses((status = 200, description = "tokens", body = SignedIn)))]
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

/// Refresh
///
/// Each refresh token is good once. Only the limit of failures for an address holds here, not that of a client. One
/// that is used again was stolen, or its successor was: every refresh token of that sign-in is void then.
#[utoipa::path(post, path = "/v1/auth/refresh", operation_id = "refresh", tag = "sign-in", request_body = RefreshBody,
    responses((status = 200, description = "tokens", body = SignedIn)))]
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

/// Revoke
///
/// Voids a refresh token and all that came from the same sign-in. Access tokens given before stay good until they are over, at most a day.
#[utoipa::path(post, path = "/v1/auth/revoke", operation_id = "revoke", tag = "sign-in", request_body = RefreshBody,
    responses((status = 204, description = "Void, if there was such a token.")))]
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

/// A body of so many texts, each required.
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
