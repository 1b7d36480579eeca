//! The audit log: response shapes and handlers. For admins.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::flow::partner::unknown;
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::Admin;
use crate::http::page::{ListParams, Page, PartnerParam, encode_cursor};
use crate::http::query::Query;
use crate::http::request::PathId;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::store::audit::{self, AuditFilter};

/// One entry of the audit log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    audit_id: String,
    at: Time,
    /// The client id; `user@host` for a command run on a machine.
    actor: String,
    role: String,
    #[schema(example = "partner.update")]
    action: String,
    /// The object that was changed or viewed.
    object: Option<String>,
    partner_id: Option<String>,
    /// The address that the request came from.
    address: Option<String>,
    /// The `X-Request-Id` of the request.
    request_id: Option<String>,
    /// The changed values before the change.
    before: Option<Value>,
    /// The changed values after it.
    after: Option<Value>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditList {
    code: Success,
    items: Vec<AuditEntry>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/v1/audit", operation_id = "listAudit", tag = "partners", security(("bearer" = [])),
    params(PartnerParam,
        ("actor" = Option<String>, Query, description = "only entries of this actor: a client id or user@host"),
        ("action" = Option<String>, Query, description = "only entries with this action, for example \
            partner.update"), ListParams),
    responses((status = 200, description = "a page", body = AuditList)))]
/// The audit log
///
/// The actions of operators and admins, newest first. For admins.
pub async fn list(State(hub): State<Hub>, _admin: Admin, mut query: Query) -> Answer {
    let whose = PartnerParam::read(&mut query)?;
    page(&hub, query, whose.partner_id).await
}

#[utoipa::path(get, path = "/v1/partners/{id}/audit", operation_id = "getPartnerAudit", tag = "partners",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the partnerId"),
        ("actor" = Option<String>, Query, description = "only entries of this actor: a client id or user@host"),
        ("action" = Option<String>, Query, description = "only entries with this action, for example \
            partner.update"), ListParams),
    responses((status = 200, description = "a page", body = AuditList)))]
/// A partner's audit log
///
/// The entries about one partner, newest first. For admins.
pub async fn of_partner(State(hub): State<Hub>, _admin: Admin, query: Query, PathId(id): PathId) -> Answer {
    let id: Tsid = id.parse().map_err(|_| unknown())?;
    crate::store::partner::get(hub.store.api(), id).await?.ok_or_else(unknown)?;
    page(&hub, query, Some(id)).await
}

async fn page(hub: &Hub, mut query: Query, partner_id: Option<Tsid>) -> Answer {
    let whose = partner_id.unwrap_or(Tsid(0));
    let page = Page::read(&mut query, hub, "audit", whose)?;
    let filter = AuditFilter { partner_id, actor: query.take("actor"), action: query.take("action") };
    query.close()?;
    let below = page.after.map_or(page.below, |after| after.0.min(page.below));
    let mut rows = audit::list(hub.store.api(), &filter, below, page.from, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next_cursor = rows.last().filter(|_| more).map(|r| encode_cursor(hub, "audit", whose, (r.audit_id, 0)));
    let entry = |r: audit::AuditRow| AuditEntry {
        audit_id: r.audit_id.to_string(),
        at: Time(r.at),
        actor: r.actor,
        role: r.role,
        action: r.action,
        object: r.object,
        partner_id: r.partner_id.map(|id| id.to_string()),
        address: r.address,
        request_id: r.request_id,
        before: r.before,
        after: r.after,
    };
    let items = rows.into_iter().map(entry).collect();
    Ok(respond(StatusCode::OK, &AuditList { code: Success::Success, items, next_cursor }))
}
