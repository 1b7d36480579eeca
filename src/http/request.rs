//! The layer around every request, and the strict reading of bodies.

use std::cell::Cell;
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, OptionalFromRequest, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::context::{ENVELOPED_AT, RATE_STATUS, REQUEST_ID};
use super::field;
use super::problem::Problem;
use super::server::Peer;
use crate::error::{Error, Refusal};
use crate::flow::rate::RateStatus;
use crate::hub::Hub;
use crate::limits;
use crate::telemetry::observe;

/// The layer around every handler. It gives the request an id, counts and logs it, moves streams to their own budget,
/// and runs the handler in a task of its own, so that a caller that disconnects does not interrupt a database
/// transaction.
pub async fn wrap_request(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    let id = hub.next_id().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("none", |m| m.as_str()).to_owned();
    let (method, peer) = (request.method().clone(), request.extensions().get::<Peer>().cloned());
    let asked = method.clone();
    let began = Instant::now();
    let enveloped_at = is_enveloped(request.uri().path()).then(|| hub.clock.now());
    let handled = RATE_STATUS.scope(
        Cell::new(None),
        ENVELOPED_AT.scope(
            enveloped_at,
            REQUEST_ID.scope(id.clone(), async move {
                let answered = match check_target(&request) {
                    Ok(()) => next.run(request).await,
                    Err(refusal) => Problem::from(refusal).into_response(),
                };
                let mut response = match peer {
                    Some(peer) => {
                        peer.admit(&asked, answered).unwrap_or_else(|busy| Problem::from(busy).into_response())
                    }
                    None => answered,
                };
                if let Some(rate_status) = RATE_STATUS.try_with(Cell::get).ok().flatten() {
                    set_rate_headers(rate_status, response.headers_mut());
                }
                response
            }),
        ),
    );
    let mut response = hub
        .shutdown
        .spawn(handled)
        .await
        .unwrap_or_else(|e| Problem::from(Error::Internal(format!("a handler ended early: {e}"))).into_response());
    let status = response.status();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    hub.metrics.requests.with_label_values(&[&route, status.as_str()]).inc();
    observe(&hub.metrics.request_seconds, &[&route], began.elapsed());
    tracing::debug!(request = id, %method, route, status = status.as_u16(), "answered");
    response
}

/// Whether answers at this path have the envelope of the seeds of chats.
pub fn is_enveloped(path: &str) -> bool {
    path.starts_with("/api/")
}

/// Sets the `RateLimit-*` headers.
fn set_rate_headers(rate_status: RateStatus, headers: &mut HeaderMap) {
    let headers_set = [
        ("ratelimit-limit", rate_status.limit),
        ("ratelimit-remaining", rate_status.remaining),
        ("ratelimit-reset", 1),
    ];
    for (name, value) in headers_set {
        headers.insert(HeaderName::from_static(name), value.into());
    }
}

/// Checks the length of the address, and that `Host` is given once: with two, a proxy and the hub could disagree about
/// the target.
fn check_target(request: &Request) -> Result<(), Refusal> {
    if request.uri().to_string().len() > limits::URI_BYTES {
        return Err(Refusal::new(414, "uri_too_long", "the address is too long"));
    }
    match (request.headers().get_all(header::HOST).iter().count(), request.version()) {
        (1, _) | (0, Version::HTTP_10) => Ok(()),
        _ => Err(Refusal::new(400, "host_invalid", "send the header Host, once")),
    }
}

/// A JSON body of at most `MOST` bytes, not parsed yet.
pub struct JsonBody<const MOST: usize>(pub Bytes);

impl<const MOST: usize> FromRequest<Hub> for JsonBody<MOST> {
    type Rejection = Problem;

    async fn from_request(request: Request, hub: &Hub) -> Result<Self, Problem> {
        check_json_headers(request.headers())?;
        Ok(JsonBody(read_body(request, hub, MOST).await?))
    }
}

/// An empty body is none, whatever its Content-Type.
impl<const MOST: usize> OptionalFromRequest<Hub> for JsonBody<MOST> {
    type Rejection = Problem;

    async fn from_request(request: Request, hub: &Hub) -> Result<Option<Self>, Problem> {
        let declared = check_json_headers(request.headers());
        let body = read_body(request, hub, MOST).await?;
        if body.is_empty() {
            return Ok(None);
        }
        declared?;
        Ok(Some(JsonBody(body)))
    }
}

/// Reads a body of at most `most` bytes, of any type.
///
/// # Errors
/// `body_too_large`, `body_timeout`, `body_incomplete`; `queue_unavailable` when the process stops before the body has
/// arrived.
pub async fn read_body(request: Request, hub: &Hub, most: usize) -> Result<Bytes, Problem> {
    let too_large = || Refusal::new(413, "body_too_large", format!("the body is larger than {most} bytes"));
    // A Content-Length that is too large is refused without waiting for the body.
    if request.body().size_hint().lower() > most as u64 {
        return Err(too_large().into());
    }
    let body = Limited::new(request.into_body(), most).collect();
    let collected = tokio::select! {
        collected = tokio::time::timeout(limits::BODY_TIMEOUT, body) => {
            collected.map_err(|_| Refusal::new(408, "body_timeout", "the body did not arrive in time"))?
        }
        () = body_grace_over(hub) => return Err(Error::Busy("this process is stopping").into()),
    };
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if is_limit(e.as_ref()) => Err(too_large().into()),
        Err(_) => Err(Refusal::new(400, "body_incomplete", "the body ended early").into()),
    }
}

/// Resolves a second after the process began to stop: a body that is being sent may still arrive, and a slow one does
/// not delay the stop.
async fn body_grace_over(hub: &Hub) {
    hub.shutdown.stopping().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn is_limit(mut e: &(dyn std::error::Error + 'static)) -> bool {
    loop {
        if e.is::<LengthLimitError>() {
            return true;
        }
        match e.source() {
            Some(source) => e = source,
            None => return false,
        }
    }
}

fn check_json_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |reason, detail: &str| Err(Refusal::new(415, reason, detail));
    let mut content_types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(content_type) = content_types.next() else {
        return refuse("content_type_missing", "send Content-Type: application/json");
    };
    let content_type = String::from_utf8_lossy(content_type.as_bytes());
    let Some((media, parameters)) = field::parse_parameters(&content_type).filter(|_| content_types.next().is_none())
    else {
        return refuse(
            "content_type_unsupported",
            "send Content-Type: application/json, once and with whole parameters",
        );
    };
    // Types such as `application/merge-patch+json` have rules of their own, which no handler follows.
    if !media.eq_ignore_ascii_case("application/json") {
        return refuse("content_type_unsupported", "send Content-Type: application/json");
    }
    // RFC 8259 8.1 and 11: JSON is UTF-8, and a charset has no meaning. A charset of another encoding is a mistake;
    // refuse it here, where the error can name it.
    let is_utf8 = |name: &str| ["utf-8", "utf8"].iter().any(|utf8| name.eq_ignore_ascii_case(utf8));
    if parameters.iter().any(|(name, value)| name == "charset" && !is_utf8(value)) {
        return refuse("charset_unsupported", "JSON is UTF-8; send no other charset");
    }
    let is_identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return refuse("content_encoding_unsupported", "send the body as it is, not compressed");
    }
    Ok(())
}

/// The id in a path. A text that the database cannot hold is answered with 404, because nothing has such an id.
pub struct PathId(pub String);

impl FromRequestParts<Hub> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<PathId, Problem> {
        match Path::<String>::from_request_parts(parts, hub).await {
            // PostgreSQL stores no text with NUL.
            Ok(Path(id)) if !id.contains('\0') => Ok(PathId(id)),
            _ => Err(Error::NotFound.into()),
        }
    }
}
