//! Cross-origin requests: which web pages may call what users call. A browser asks before it sends an Authorization
//! header to another origin (a preflight), and shows a page the answer only if the answer admits its origin.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::hub::Hub;

/// What a page may call: the paths of users. A partner's own calls come from its servers.
const PATHS: [&str; 2] = ["/api/", "/v1/inbox"];

/// Answers preflights, and admits the origins of the settings. Without any this costs a comparison.
pub async fn admit(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    let origins = &hub.settings.api.allowed_origins;
    let path = request.uri().path();
    if origins.is_empty() || !PATHS.iter().any(|of_users| path.starts_with(of_users)) {
        return next.run(request).await;
    }
    let admitted = admitted(origins, request.headers());
    let asks = request.method() == Method::OPTIONS && request.headers().contains_key("access-control-request-method");
    let mut response = if asks { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    // A cache must not give one origin the answer for another.
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = admitted else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let mut set = |name, value| drop(headers.insert(name, HeaderValue::from_static(value)));
    if asks {
        set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE");
        set(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Last-Event-ID, Idempotency-Key, If-Match",
        );
        set(header::ACCESS_CONTROL_MAX_AGE, "600");
    } else {
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, "X-Request-Id, Retry-After, RateLimit-Limit, RateLimit-Remaining");
    }
    response
}

/// The origin to admit; None if the request comes from no page, or from one that is not admitted.
fn admitted(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    if origins.iter().any(|admitted| admitted == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    origins.iter().any(|admitted| admitted.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}
