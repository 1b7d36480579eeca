//! The inbox for a partner's own pages: `/inbox.js`, a custom element without dependencies, and `/inbox/demo`, a page
//! that shows it with two users. Neither contains anything about this installation.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

use super::page::{page, script, style};

/// A page of this hub: its own scripts, styles and requests, images of messages, and nothing parsed from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// `GET /inbox.js`: defines `<notihub-inbox>`. Any page may load it.
pub async fn element() -> Response {
    let any_page = (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin");
    let element = script(include_bytes!("inbox.js"));
    ([any_page, (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], element).into_response()
}

/// `GET /inbox/demo`: the page of `notihub up --demo`.
pub async fn demo() -> Response {
    page(POLICY, include_bytes!("demo.html"))
}

/// `GET /inbox/demo.js`.
pub async fn demo_script() -> Response {
    script(include_bytes!("demo.js"))
}

/// `GET /inbox/demo.css`.
pub async fn demo_style() -> Response {
    style(include_bytes!("demo.css"))
}
