//! Users: a partner's own people, by each of their three doors.

mod command;
mod door;
mod isolation;
mod leave;
mod profile;
mod sign_in;

use chrono::TimeDelta;
use data_encoding::BASE64URL_NOPAD;
use notihub::crypt::keyed_hash;
use notihub::flow;
use notihub::flow::partner::{NewUserKey, PartnerChange};
use notihub::id::Tsid;
use notihub::model::access::principal::Actor;
use serde_json::{Value, json};

use crate::support::app::{Answer, App};

/// As fast as the setting allows.
const FAST: &str = "--bcrypt-cost=10";
const PASSWORD: &str = "correct horse battery";

/// A new user key of a partner, as `notihub partner user-key` makes it.
pub async fn user_key(app: &App, partner_id: Tsid, overlap_s: i64) -> NewUserKey {
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    flow::partner::rotate_user_key(&app.hub, permit, partner_id, TimeDelta::seconds(overlap_s)).await.unwrap()
}

/// A JWT with this header and claims, signed with HMAC-SHA256.
fn jwt(header: &Value, claims: &Value, key: &str) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&keyed_hash(key.as_bytes(), signed.as_bytes())))
}

/// The claims of a subscriber token for `sub`, issued now for an hour.
fn claims(app: &App, partner_id: Tsid, sub: &str) -> Value {
    let now = app.hub.clock.now().timestamp();
    json!({"iss": partner_id.to_string(), "aud": "notihub/user", "sub": sub, "iat": now, "exp": now + 3_600})
}

/// A token that the partner's server signs for its user.
pub fn subscriber(app: &App, partner_id: Tsid, key: &NewUserKey, sub: &str) -> String {
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": key.kid});
    jwt(&header, &claims(app, partner_id, sub), &key.key)
}

/// The same with further headers.
pub async fn ask_with(
    app: &App,
    token: &str,
    headers: &[(&str, &str)],
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let mut request = app.http.request(method.parse().unwrap(), app.uri(path));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    Answer::read(request).await
}

/// With a request on behalf of a user of the test's partner.
pub async fn on_behalf(app: &App, user: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    ask_with(app, &app.token, &[("x-user", user)], method, path, body).await
}

/// Lets people sign up at the test's partner.
async fn open_sign_up(app: &App) {
    let actor = Actor::local_admin("test".into());
    let change = PartnerChange { sign_up: Some(true), ..PartnerChange::default() };
    flow::partner::update(&app.hub, actor.admin_permit().unwrap(), app.partner.partner_id, change).await.unwrap();
}

async fn sign_up(app: &App, username: &str) -> Answer {
    let body = json!({"username": username, "password": PASSWORD, "nickname": "Kim"});
    app.ask("", "POST", "/api/v1/auth/signup", Some(body)).await
}

async fn login(app: &App, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password});
    app.ask("", "POST", "/api/v1/auth/login", Some(body)).await
}

/// Access and refresh token of an answer.
fn tokens(answer: &Answer) -> (String, String) {
    let text = |name: &str| answer.body["data"][name].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned();
    (text("accessToken"), text("refreshToken"))
}

async fn refresh(app: &App, token: &str) -> Answer {
    app.ask("", "POST", "/api/v1/auth/refresh", Some(json!({"refreshToken": token}))).await
}

async fn me(app: &App, token: &str) -> Answer {
    app.ask(token, "GET", "/api/v1/users/me", None).await
}
