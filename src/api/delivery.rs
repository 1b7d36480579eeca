//! Deliveries: their outside shape and handlers.

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::error::Answer;
use super::page::{Page, cursor};
use super::request::{Id, Query, ok};
use super::shape::{channel_filter, recipient_filter, time};
use crate::error::Error;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::delivery::{STATUSES, Status, parse_public_id};
use crate::store::attempt;
use crate::store::delivery::{self, Filter, Row, Window};

pub fn json(row: &Row, attempts: Option<Vec<&attempt::Row>>) -> Value {
    let mut body = json!({
        "deliveryId": format!("{}-{}", row.message_id, row.no),
        "messageId": row.message_id.to_string(),
        "channel": row.lane.channel().as_str(),
        "to": row.to(),
        "recipient": row.recipient,
        "status": row.status.as_str(),
        "reason": row.reason,
        "attempt": row.attempt,
        "maxAttempts": row.max_attempts,
        "provider": row.provider,
        "possiblySent": row.possibly_sent,
        "cancelRequested": row.cancel_requested,
        "nextAt": (row.status == Status::Scheduled).then(|| time(row.ready_at)),
        "settledAt": row.settled_at.map(time),
    });
    if let Some(attempts) = attempts {
        body["attempts"] = attempts.into_iter().map(attempt_json).collect();
    }
    body
}

fn attempt_json(row: &attempt::Row) -> Value {
    json!({
        "attempt": row.attempt,
        "outcome": row.outcome,
        "late": row.late,
        "provider": row.provider,
        "claimedAt": time(row.claimed_at),
        "calledAt": row.called_at.map(time),
        "endedAt": row.ended_at.map(time),
        "nextAt": row.next_at.map(time),
        "errorReason": row.reason,
        "errorCode": row.code,
        "errorDetail": row.detail,
        "providerRef": row.provider_ref,
        "worker": row.worker.to_string(),
    })
}

pub async fn get(State(hub): State<Hub>, caller: Caller, query: Query, Id(id): Id) -> Answer {
    query.close()?;
    let (message_id, no) = parse_public_id(&id).ok_or(Error::NotFound)?;
    let (partner, shard, db) = (caller.partner.partner_id, caller.partner.shard, hub.store.api());
    let rows = delivery::of_message(db, partner, shard, message_id, Some(no)).await?;
    let row = rows.first().ok_or(Error::NotFound)?;
    let attempts = attempt::of_message(db, partner, shard, message_id, Some(no)).await?;
    let mut body = json(row, Some(attempts.iter().collect()));
    body["code"] = "0000".into();
    Ok(ok(StatusCode::OK, &body))
}

pub async fn list(State(hub): State<Hub>, caller: Caller, mut query: Query) -> Answer {
    let page = Page::read(&mut query, &hub, "deliveries", caller.partner.partner_id)?;
    let (to, phone) = recipient_filter(&mut query, "to", &caller.partner.region);
    let filter = Filter {
        status: query.parse("status", &format!("one of {}", STATUSES.map(Status::as_str).join(", ")), |text| {
            text.parse().ok()
        })?,
        lanes: channel_filter(&mut query)?,
        provider: query.take("provider"),
        reason: query.take("error"),
        to,
        phone,
    };
    query.close()?;
    let after = page.after.unwrap_or((Tsid(i64::MAX), 0));
    let window = Window { after, below: page.below, from: page.from };
    let (partner, db) = (&caller.partner, hub.store.api());
    let mut rows = delivery::list(db, partner.partner_id, partner.shard, &filter, window, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(0));
    let next =
        rows.last().filter(|_| more).map(|r| cursor(&hub, "deliveries", partner.partner_id, (r.message_id, r.no)));
    let items: Vec<Value> = rows.iter().map(|row| json(row, None)).collect();
    Ok(ok(StatusCode::OK, &json!({"code": "0000", "items": items, "nextCursor": next})))
}
