//! The API. All routes are on this page, grouped by caller. A handler reads the request, calls one flow or one read of
//! the store, and answers.

mod audit;
mod auth;
mod chat_channel;
mod chat_message;
mod delivery;
mod envelope;
mod event;
mod form;
pub mod health;
mod inbox;
mod ledger;
mod member;
mod message;
mod message_events;
mod notification;
pub mod openapi;
mod partner;
mod partner_user;
mod provider;
mod receipt;
mod redrive;
mod reference;
mod room;
mod room_form;
mod room_stream;
mod shape;
mod sign_in;
mod sql_intake;
mod stats;
mod stomp;
mod user;
mod user_rooms;
mod webhook;

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::routing::get;
use axum::{Extension, Router};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::{cors, problem, request};
use crate::hub::Hub;
use crate::ui::{chat as chat_pages, docs, inbox as inbox_pages};

/// Registers all handlers. Each line also adds their description, path included, to the OpenAPI document.
fn routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new()
        // Partners post messages and read their state.
        .routes(routes!(message::accept, message::list)) // /v1/messages
        .routes(routes!(message::accept_batch)) // /v1/messages/batch
        .routes(routes!(message::get)) // /v1/messages/{id}
        .routes(routes!(message::timeline)) // /v1/messages/{id}/timeline
        .routes(routes!(message_events::stream)) // /v1/messages/{id}/events
        .routes(routes!(message::cancel)) // /v1/messages/{id}/cancel
        .routes(routes!(delivery::list)) // /v1/deliveries
        .routes(routes!(delivery::get)) // /v1/deliveries/{id}
        .routes(routes!(stats::daily)) // /v1/stats/daily
        .routes(routes!(ledger::get)) // /v1/ledger
        .routes(routes!(sql_intake::refused)) // /v1/intake/refused
        // Partners manage their users.
        .routes(routes!(partner_user::put, partner_user::get, partner_user::erase)) // /v1/users/{externalId}
        .routes(routes!(partner_user::token)) // /v1/users/{externalId}/token
        // Users sign up and sign in.
        .routes(routes!(auth::sign_up)) // /api/v1/auth/signup
        .routes(routes!(auth::login)) // /api/v1/auth/login
        .routes(routes!(auth::refresh)) // /api/v1/auth/refresh
        .routes(routes!(auth::logout)) // /api/v1/auth/logout
        // Users.
        .routes(routes!(user::me, user::change_me, user::withdraw)) // /api/v1/users/me
        .routes(routes!(user::set_profile_image)) // /api/v1/users/me/profile-image
        .routes(routes!(user::set_background_image)) // /api/v1/users/me/background-image
        .routes(routes!(user::change_password)) // /api/v1/users/me/password
        .routes(routes!(user::register_device, user::devices)) // /api/v1/users/me/devices
        .routes(routes!(user::delete_device)) // /api/v1/users/me/devices/{deviceId}
        .routes(routes!(user::set_presence)) // /api/v1/users/status
        .routes(routes!(user::blocks)) // /api/v1/users/blocks
        .routes(routes!(user::get)) // /api/v1/users/{userId}
        .routes(routes!(user::block, user::unblock)) // /api/v1/users/{userId}/block
        // Partners manage their endpoints.
        .routes(routes!(webhook::create, webhook::list)) // /v1/webhooks
        .routes(routes!(webhook::get, webhook::update, webhook::delete)) // /v1/webhooks/{id}
        .routes(routes!(webhook::rotate)) // /v1/webhooks/{id}/rotate
        .routes(routes!(webhook::test)) // /v1/webhooks/{id}/test
        .routes(routes!(webhook::deliveries)) // /v1/webhooks/{id}/deliveries
        .routes(routes!(webhook::health)) // /v1/webhooks/{id}/health
        // Partners redrive their own webhooks, operators any dead letter.
        .routes(routes!(redrive::one)) // /v1/deliveries/{id}/redrive
        .routes(routes!(redrive::dead_letters)) // /v1/dead-letters/redrive
        .routes(routes!(redrive::recover)) // /v1/webhooks/{id}/recover
        .routes(routes!(redrive::replay)) // /v1/webhooks/{id}/replay
        .routes(routes!(redrive::list)) // /v1/redrives
        .routes(routes!(redrive::get)) // /v1/redrives/{id}
        .routes(routes!(redrive::cancel)) // /v1/redrives/{id}/cancel
        // Operators manage the providers.
        .routes(routes!(provider::list)) // /v1/providers
        .routes(routes!(provider::pause)) // /v1/providers/{name}/pause
        .routes(routes!(provider::resume)) // /v1/providers/{name}/resume
        // Providers post receipts.
        .routes(routes!(receipt::receive)) // /v1/receipts/{provider}
        // Clients sign in.
        .routes(routes!(sign_in::token)) // /v1/auth/token
        .routes(routes!(sign_in::refresh)) // /v1/auth/refresh
        .routes(routes!(sign_in::revoke)) // /v1/auth/revoke
        // Admins.
        .routes(routes!(partner::create, partner::list)) // /v1/partners
        .routes(routes!(partner::get, partner::update)) // /v1/partners/{id}
        .routes(routes!(partner::rotate)) // /v1/partners/{id}/key/rotate
        .routes(routes!(audit::of_partner)) // /v1/partners/{id}/audit
        .routes(routes!(partner::create_key, partner::keys)) // /v1/keys
        .routes(routes!(partner::revoke_key)) // /v1/keys/{id}
        .routes(routes!(partner::rotate_key)) // /v1/keys/{id}/rotate
        .routes(routes!(audit::list)) // /v1/audit
        // Messages in the words of seed 003.
        .routes(routes!(notification::accept, notification::list)) // /notifications
        .routes(routes!(notification::get)) // /notifications/{id}
        // Reference for authors of clients.
        .routes(routes!(reference::errors)) // /v1/errors
        .routes(routes!(openapi::get)) // /openapi.json
        // Users read and change their inbox, live.
        .routes(routes!(inbox::list)) // /v1/inbox
        .routes(routes!(inbox::counts)) // /v1/inbox/counts
        .routes(routes!(inbox::stream)) // /v1/inbox/stream
        .routes(routes!(inbox::see)) // /v1/inbox/seen
        .routes(routes!(inbox::read_all)) // /v1/inbox/read-all
        .routes(routes!(inbox::read_item)) // /v1/inbox/{id}/read
        .routes(routes!(inbox::unread_item)) // /v1/inbox/{id}/unread
        .routes(routes!(inbox::archive_item)) // /v1/inbox/{id}/archive
        .routes(routes!(inbox::unarchive_item)) // /v1/inbox/{id}/unarchive
        .routes(routes!(inbox::snooze_item)) // /v1/inbox/{id}/snooze
        .routes(routes!(inbox::make_ticket)) // /api/v1/sse/ticket
        // Users talk in rooms.
        .routes(routes!(room::make, room::list)) // /api/v1/chatrooms
        .routes(routes!(room::get, room::change, room::leave)) // /api/v1/chatrooms/{roomId}
        .routes(routes!(room::change_own)) // /api/v1/chatrooms/{roomId}/me
        .routes(routes!(room::events)) // /api/v1/chatrooms/{roomId}/events
        .routes(routes!(member::list, member::invite)) // /api/v1/chatrooms/{roomId}/participants
        .routes(routes!(member::change, member::remove)) // /api/v1/chatrooms/{roomId}/participants/{userId}
        .routes(routes!(chat_message::send)) // /api/v1/messages
        .routes(routes!(chat_message::mark_read)) // /api/v1/messages/mark-read
        .routes(routes!(chat_message::get, chat_message::edit, chat_message::delete)) // /api/v1/messages/{id}
        .routes(routes!(chat_message::reads)) // /api/v1/messages/{id}/reads
        .routes(routes!(room_stream::unread)) // /api/v1/sse/unread/{userId}
        .routes(routes!(room_stream::updates)) // /api/v1/sse/updates/{userId}
        .routes(routes!(room_stream::read_count)) // /api/v1/sse/read-count/{roomId}/{messageId}
        // The same in the words of seed 002.
        .routes(routes!(chat_channel::make, chat_channel::list)) // /api/channels
        .routes(routes!(chat_channel::get, chat_channel::change, chat_channel::close)) // /api/channels/{channelId}
        .routes(routes!(chat_channel::join)) // /api/channels/{channelId}/join
        .routes(routes!(chat_channel::leave)) // /api/channels/{channelId}/leave
        .routes(routes!(chat_channel::members)) // /api/channels/{channelId}/members
        .routes(routes!(chat_channel::messages, chat_channel::send)) // /api/channels/{channelId}/messages
        // Monitoring.
        .routes(routes!(health::alive)) // /healthz
        .routes(routes!(health::ready)) // /readyz
        .routes(routes!(health::metrics)) // /metrics
        .routes(routes!(health::about)) // /about
}

/// Adds the pages for people. They are not part of the API, and `/openapi.json` does not describe them.
fn with_pages(router: Router<Hub>) -> Router<Hub> {
    router
        .route("/docs", get(docs::index))
        .route("/docs/{topic}", get(docs::topic))
        .route("/docs/style.css", get(docs::style))
        .route("/llms.txt", get(docs::llms_txt))
        .route("/inbox.js", get(inbox_pages::element))
        .route("/inbox/demo", get(inbox_pages::demo))
        .route("/inbox/demo.js", get(inbox_pages::demo_script))
        .route("/inbox/demo.css", get(inbox_pages::demo_style))
        .route("/chat/demo", get(chat_pages::demo))
        .route("/chat/demo.js", get(chat_pages::demo_script))
        .route("/chat/demo.css", get(chat_pages::demo_style))
        .route("/chat/messages.js", get(chat_pages::messages_script))
        .route("/chat/stomp.js", get(chat_pages::stomp_script))
}

/// The OpenAPI document, made on first use.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::to_json(routes().into_openapi()));

/// The router of the whole API: all routes, the documents for people, problems for unknown addresses and methods, and
/// the layer around every request.
pub fn router(hub: &Hub) -> Router {
    let (router, _described) = routes().split_for_parts();
    stomp::with_sockets(with_pages(router))
        .fallback(problem::route_not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(hub.clone(), cors::admit))
        .layer(Extension(openapi::Document(&DOCUMENT)))
        .layer(axum::middleware::from_fn_with_state(hub.clone(), request::wrap_request))
        .with_state(hub.clone())
}
