//! Records in the audit log that staff viewed partners' data.

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use chrono::DurationRound as _;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::principal::Actor;
use crate::model::delivery::parse_public_id;
use crate::store;

/// The GET routes that show staff the content or recipients of partners' messages, or the audit log. Each view is
/// recorded in the audit log.
pub const AUDITED_ROUTES: [&str; 15] = [
    "/notifications",
    "/notifications/{id}",
    "/v1/audit",
    "/v1/deliveries",
    "/v1/deliveries/{id}",
    "/v1/intake/refused",
    "/v1/messages",
    "/v1/messages/{id}",
    "/v1/messages/{id}/events",
    "/v1/messages/{id}/timeline",
    "/v1/partners/{id}/audit",
    "/v1/webhooks",
    "/v1/webhooks/{id}",
    "/v1/webhooks/{id}/deliveries",
    "/v1/webhooks/{id}/health",
];

/// Whether the handler will answer this caller: the audit log is for admins, and a refused request shows nothing.
pub fn will_answer(parts: &Parts, actor: &Actor) -> bool {
    !parts.uri.path().ends_with("/audit") || actor.admin_permit().is_ok()
}

/// Records that staff viewed an object, once a minute for each actor and object. Routes that are not audited do
/// nothing; changes have audit entries of their own.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached: the request must then be refused.
pub async fn record_view(parts: &Parts, hub: &Hub, actor: &Actor) -> Result<()> {
    let route = parts.extensions.get::<MatchedPath>().map_or("", |route| route.as_str());
    if !AUDITED_ROUTES.contains(&route) {
        return Ok(());
    }
    let now = hub.clock.now();
    let minute = now.duration_trunc(limits::LOOKS_TOGETHER).unwrap_or(now);
    let object = audited_path(route, parts.uri.path());
    store::audit::record_view(hub.store.api(), hub.next_id(), now, actor, &object, minute).await
}

/// The path for the audit log. Parts that are not ids of the hub are replaced by the parameter's name, because they
/// could name a person and the log cannot be changed. The query is left out for the same reason.
fn audited_path(route: &str, path: &str) -> String {
    let is_ours = |part: &str| part.parse::<Tsid>().is_ok() || parse_public_id(part).is_some();
    let parts = route.split('/').zip(path.split('/'));
    let parts: Vec<&str> =
        parts.map(|(name, given)| if name.starts_with('{') && is_ours(given) { given } else { name }).collect();
    parts.join("/")
}
