//! `/chat/demo`, a page that shows two users in one room, each with a connection of its own: `stomp.js` is a client of
//! the live protocol, `messages.js` keeps and shows the messages, `demo.js` has the rest. They contain nothing about
//! this installation.

use axum::response::Response;

use super::page::{page, script, style};

/// Its own scripts, styles and requests, and nothing parsed from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// `GET /chat/demo`: the page of `notihub up --demo`. With `?user=mina` or `?user=junho` it shows that user alone.
pub async fn demo() -> Response {
    page(POLICY, include_bytes!("demo.html"))
}

/// `GET /chat/demo.js`.
pub async fn demo_script() -> Response {
    script(include_bytes!("demo.js"))
}

/// `GET /chat/stomp.js`.
pub async fn stomp_script() -> Response {
    script(include_bytes!("stomp.js"))
}

/// `GET /chat/messages.js`.
pub async fn messages_script() -> Response {
    script(include_bytes!("messages.js"))
}

/// `GET /chat/demo.css`.
pub async fn demo_style() -> Response {
    style(include_bytes!("demo.css"))
}
