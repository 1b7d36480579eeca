//! How a connection begins: WebSocket or SockJS, the token, and the origin of the page.

use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::driver::Driver;
use super::socket::{Framing, Socket};
use crate::error::{Code, Error, Refusal, Result};
use crate::http::answer::Answer;
use crate::http::caller::{LiveUser, RequestOrigin};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::sockjs;
use crate::hub::Hub;
use crate::limits;
use crate::model::access::user::UserCaller;

/// Begins a connection: a WebSocket with STOMP. Without an upgrade it tells what it is.
pub async fn plain(
    State(hub): State<Hub>,
    origin: RequestOrigin,
    user: HandshakeUser,
    headers: HeaderMap,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    match upgrade {
        Ok(upgrade) => open(hub, origin, user, &headers, upgrade, Framing::Plain),
        Err(_) => Ok((StatusCode::OK, "Welcome to SockJS!\n").into_response()),
    }
}

/// What a SockJS client asks first.
pub async fn info() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json; charset=UTF-8"),
        (header::CACHE_CONTROL, "no-store, no-cache, no-transform, must-revalidate, max-age=0"),
    ];
    (headers, sockjs::info(rand::random())).into_response()
}

/// A session of SockJS over WebSocket. Its other transports need a session in memory: they are answered 404, and such
/// networks use SSE and `POST /api/v1/messages`.
pub async fn sockjs(
    State(hub): State<Hub>,
    Path((server, session, transport)): Path<(String, String, String)>,
    origin: RequestOrigin,
    user: HandshakeUser,
    headers: HeaderMap,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    match upgrade {
        Ok(upgrade) if transport == "websocket" && sockjs::is_session_path(&server, &session) => {
            open(hub, origin, user, &headers, upgrade, Framing::SockJs)
        }
        _ => Err(Error::NotFound.into()),
    }
}

/// The user of the handshake, if it names one.
pub struct HandshakeUser(Option<UserCaller>);

impl FromRequestParts<Hub> for HandshakeUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> std::result::Result<HandshakeUser, Self::Rejection> {
        let mut query = Query::from_request_parts(parts, hub).await?;
        let names_user = query.take("token").is_some() | query.take("ticket").is_some();
        // SockJS clients add a parameter of their own against caches.
        query.take("t");
        query.close()?;
        if !names_user && !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(HandshakeUser(None));
        }
        let LiveUser(caller) = LiveUser::from_request_parts(parts, hub).await?;
        Ok(HandshakeUser(Some(caller)))
    }
}

fn open(
    hub: Hub,
    RequestOrigin(origin): RequestOrigin,
    HandshakeUser(caller): HandshakeUser,
    headers: &HeaderMap,
    upgrade: WebSocketUpgrade,
    framing: Framing,
) -> Answer {
    check_origin(&hub, headers)?;
    let shutdown = hub.shutdown.clone();
    let upgraded = upgrade
        .protocols(["v12.stomp", "v11.stomp", "v10.stomp"])
        .read_buffer_size(limits::SOCKET_BUFFER_BYTES)
        .write_buffer_size(limits::SOCKET_BUFFER_BYTES)
        .max_write_buffer_size(limits::SOCKET_WRITE_BYTES)
        .max_message_size(limits::SOCKET_READ_BYTES)
        .max_frame_size(limits::SOCKET_READ_BYTES)
        .on_upgrade(move |socket| async move {
            let task = shutdown.spawn(async move {
                let mut socket = Socket::new(socket, framing);
                if !socket.greet().await {
                    return;
                }
                Driver::new(hub, origin, caller).run(socket).await;
            });
            let _ended = task.await;
        });
    Ok(upgraded)
}

/// A page of another origin may connect if it is allowed: browsers send no token by themselves, but a page could try
/// one that it has found.
fn check_origin(hub: &Hub, headers: &HeaderMap) -> Result<()> {
    let Some(origin) = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, of)| of == host);
    let allowed = &hub.settings.api.allowed_origins;
    if is_own || allowed.iter().any(|admitted| admitted == "*" || admitted == origin) {
        return Ok(());
    }
    let detail = "pages of this origin may not connect; the operator allows it with --allowed-origin";
    Err(Refusal::new(403, "forbidden", detail).with_code(Code::E002).into())
}
