//! Refused requests of the SQL intake. No caller waits for their answer, so it is stored and can be read here.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::excerpt;
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::Reader;
use crate::http::page::{ListParams, Page, PartnerParam, encode_cursor};
use crate::http::problem::ProblemCode;
use crate::http::query::Query;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::store::sql_intake::{self, RefusalRow, RequestFault};

/// A refused request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRequest {
    /// The id that `notihub.enqueue` returned.
    request_id: String,
    /// The id of the partner that owns it. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<String>,
    client_msg_id: Option<String>,
    enqueued_at: Time,
    refused_at: Time,
    #[schema(value_type = ProblemCode)]
    code: String,
    reason: String,
    detail: String,
    errors: Vec<RefusedFault>,
}

/// One thing wrong at one place of the message.
#[derive(Serialize, ToSchema)]
pub struct RefusedFault {
    /// JSON pointer into the message.
    pointer: String,
    reason: String,
    detail: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedPage {
    code: Success,
    items: Vec<RefusedRequest>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    next_cursor: Option<String>,
}

fn shape(row: RefusalRow, partner_id: Option<String>) -> RefusedRequest {
    let fault = |w: RequestFault| RefusedFault { pointer: w.pointer, reason: w.reason, detail: w.detail };
    RefusedRequest {
        request_id: row.request_id.to_string(),
        partner_id,
        client_msg_id: row.client_msg_id.as_deref().map(excerpt),
        enqueued_at: Time(row.enqueued_at),
        refused_at: Time(row.refused_at),
        code: row.code,
        reason: row.reason,
        detail: row.detail,
        errors: row.errors.into_iter().map(fault).collect(),
    }
}

#[utoipa::path(get, path = "/v1/intake/refused", operation_id = "listRefused", tag = "messages",
    security(("bearer" = [])),
    params(PartnerParam, ListParams),
    responses((status = 200, description = "a page", body = RefusedPage)))]
/// Refused requests
///
/// Requests that were enqueued in SQL and refused because they are not valid messages, newest first. `since` and
/// `until` refer to the time of the refusal.
pub async fn refused(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let scope = reader.scope(&hub, &mut query).await?;
    let page = Page::read(&mut query, &hub, "refused", scope.cursor_owner)?;
    query.close()?;
    let below = page.after.map_or(i64::MAX, |after| after.0.0);
    let window = (page.from.time(), page.below.time());
    let mut rows = sql_intake::list_refused(hub.store.api(), &scope.partners, below, window, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next_cursor = rows
        .last()
        .filter(|_| more)
        .map(|r| encode_cursor(&hub, "refused", scope.cursor_owner, (Tsid(r.request_id), 0)));
    let items = rows
        .into_iter()
        .map(|row| {
            let partner_id = reader.partner_id_for_staff(row.partner_id);
            shape(row, partner_id)
        })
        .collect();
    Ok(respond(StatusCode::OK, &RefusedPage { code: Success::Success, items, next_cursor }))
}
