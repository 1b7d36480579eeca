//! What was enqueued in SQL and refused: nobody waited for that answer, so it is kept to be asked for.

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::error::Answer;
use super::page::{Page, cursor};
use super::request::{Query, ok};
use super::shape::time;
use crate::error::excerpt;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::store::sql_intake::{self, Refused};

fn json(row: &Refused) -> Value {
    let errors: Vec<Value> =
        row.errors.iter().map(|e| json!({"pointer": e.pointer, "reason": e.reason, "detail": e.detail})).collect();
    json!({
        "requestId": row.request_id.to_string(),
        "clientMsgId": row.client_msg_id.as_deref().map(excerpt),
        "enqueuedAt": time(row.enqueued_at),
        "refusedAt": time(row.refused_at),
        "code": row.code,
        "reason": row.reason,
        "detail": row.detail,
        "errors": errors,
    })
}

/// `since` and `until` bound the time of the refusal.
pub async fn refused(State(hub): State<Hub>, caller: Caller, mut query: Query) -> Answer {
    let page = Page::read(&mut query, &hub, "refused", caller.partner.partner_id)?;
    query.close()?;
    let (partner, below) = (&caller.partner, page.after.map_or(i64::MAX, |after| after.0.0));
    let window = (page.from.time(), page.below.time());
    let mut rows = sql_intake::refused(hub.store.api(), partner.partner_id, below, window, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next =
        rows.last().filter(|_| more).map(|r| cursor(&hub, "refused", partner.partner_id, (Tsid(r.request_id), 0)));
    let items: Vec<Value> = rows.iter().map(json).collect();
    Ok(ok(StatusCode::OK, &json!({"code": "0000", "items": items, "nextCursor": next})))
}
