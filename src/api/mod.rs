//! The API: every route on this page, grouped by who calls it. A handler extracts, calls one flow or one read, answers.

mod audit;
mod auth;
mod delivery;
pub mod error;
mod health;
mod message;
mod notification;
mod page;
mod partner;
mod request;
pub mod server;
mod shape;
mod sign_in;
mod sql_intake;
mod stats;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::hub::Hub;

pub fn router(hub: &Hub) -> Router {
    Router::new()
        // Domain services post, and look at what they posted.
        .route("/v1/messages", post(message::accept).get(message::list))
        .route("/v1/messages/batch", post(message::accept_batch))
        .route("/v1/messages/{id}", get(message::get))
        .route("/v1/messages/{id}/timeline", get(message::timeline))
        .route("/v1/messages/{id}/cancel", post(message::cancel))
        .route("/v1/deliveries", get(delivery::list))
        .route("/v1/deliveries/{id}", get(delivery::get))
        // Whoever signs in.
        .route("/v1/auth/token", post(sign_in::token))
        .route("/v1/auth/refresh", post(sign_in::refresh))
        .route("/v1/auth/revoke", post(sign_in::revoke))
        // Admins.
        .route("/v1/partners", post(partner::create).get(partner::list))
        .route("/v1/partners/{id}", get(partner::get).patch(partner::update))
        .route("/v1/partners/{id}/key/rotate", post(partner::rotate))
        .route("/v1/partners/{id}/audit", get(audit::of_partner))
        .route("/v1/keys", post(partner::create_key).get(partner::keys))
        .route("/v1/keys/{id}", delete(partner::revoke_key))
        .route("/v1/keys/{id}/rotate", post(partner::rotate_key))
        .route("/v1/audit", get(audit::list))
        .route("/v1/intake/refused", get(sql_intake::refused))
        .route("/v1/stats/daily", get(stats::daily))
        // The same in seed 003's words.
        .route("/notifications", post(notification::accept).get(notification::list))
        .route("/notifications/{id}", get(notification::get))
        // Machines that watch.
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/about", get(health::about))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(axum::middleware::from_fn_with_state(hub.clone(), request::around))
        .with_state(hub.clone())
}
