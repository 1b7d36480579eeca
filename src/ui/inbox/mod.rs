//! The inbox for a partner's own pages: `/inbox.js`, a custom element without dependencies, and `/inbox/demo`, a page
//! that shows it with two users. Neither contains anything about this installation.

use axum::body::Bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A page of this hub: its own scripts, styles and requests, images of messages, and nothing parsed from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

const CACHED: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// `GET /inbox.js`: defines `<notihub-inbox>`. Any page may load it.
pub async fn element() -> Response {
    let any_page = (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin");
    let script = asset("text/javascript; charset=utf-8", include_bytes!("inbox.js"));
    ([any_page, (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], script).into_response()
}

/// `GET /inbox/demo`: the page of `notihub up --demo`.
pub async fn demo() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        CACHED,
    ];
    (StatusCode::OK, headers, Bytes::from_static(include_bytes!("demo.html"))).into_response()
}

/// `GET /inbox/demo.js`.
pub async fn demo_script() -> Response {
    asset("text/javascript; charset=utf-8", include_bytes!("demo.js"))
}

/// `GET /inbox/demo.css`.
pub async fn demo_style() -> Response {
    asset("text/css; charset=utf-8", include_bytes!("demo.css"))
}

fn asset(kind: &'static str, body: &'static [u8]) -> Response {
    ([(header::CONTENT_TYPE, kind), CACHED], Bytes::from_static(body)).into_response()
}
