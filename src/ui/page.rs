//! Pages with scripts, and their files: how they are answered.

use axum::body::Bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

const CACHED: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// Answers with a page. `policy`: its content security policy.
pub fn page(policy: &'static str, html: &'static [u8]) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        CACHED,
    ];
    (StatusCode::OK, headers, Bytes::from_static(html)).into_response()
}

/// Answers with a script.
pub fn script(text: &'static [u8]) -> Response {
    asset("text/javascript; charset=utf-8", text)
}

/// Answers with a style sheet.
pub fn style(text: &'static [u8]) -> Response {
    asset("text/css; charset=utf-8", text)
}

fn asset(kind: &'static str, body: &'static [u8]) -> Response {
    ([(header::CONTENT_TYPE, kind), CACHED], Bytes::from_static(body)).into_response()
}
