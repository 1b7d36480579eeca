//! Seed 003's words over the same flow: a notification is a message, its deliveries have four statuses.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::auth::Caller;
use super::error::Answer;
use super::message::{answer, apply_key, find, in_doubt};
use super::page::{Page, cursor};
use super::request::{Id, Json, Query, ok};
use super::shape::{message_filter, message_id, time};
use crate::flow;
use crate::hub::Hub;
use crate::limits;
use crate::model::message::Overall;

pub async fn accept(
    State(hub): State<Hub>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
    Json(body): Json<{ limits::BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let slack = hub.settings.slack.default_name();
    let mut message = crate::model::intake::notification(&body, &hub.rules(&caller.partner), slack.as_deref())?;
    apply_key(&mut message, &headers)?;
    let accepted = flow::accept::accept(&hub, &caller.partner, message).await?;
    let deliveries: Vec<Value> = accepted
        .deliveries
        .iter()
        .map(|(channel, to)| {
            let status = accepted.status.as_notification_str();
            json!({"channel": channel.as_str(), "recipient": to, "status": status})
        })
        .collect();
    let body = json!({
        "code": "0000",
        "id": accepted.message_id.to_string(),
        "clientMsgId": accepted.client_msg_id,
        "status": Overall::Pending.as_str(),
        "createdAt": time(accepted.created_at),
        "deliveries": deliveries,
    });
    let mut response = answer(&accepted, body);
    if let Ok(location) = HeaderValue::from_str(&format!("/notifications/{}", accepted.message_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub async fn get(State(hub): State<Hub>, caller: Caller, query: Query, Id(id): Id) -> Answer {
    query.close()?;
    let whole = flow::story::whole(&hub, &caller.partner, message_id(&id)?).await?;
    let deliveries: Vec<Value> = whole
        .deliveries
        .iter()
        .map(|d| {
            json!({
                "channel": d.lane.channel().as_str(),
                "recipient": d.to(),
                "status": d.status.as_notification_str(),
                "attempts": d.attempt,
                "error": d.reason,
                "possiblySent": d.possibly_sent,
                "settledAt": d.settled_at.map(time),
            })
        })
        .collect();
    let message = &whole.message;
    let body = json!({
        "code": "0000",
        "id": message.message_id.to_string(),
        "type": message.kind,
        "title": message.detail.title,
        "message": message.detail.contents.first().map(|c| &c.body),
        "status": whole.overall.as_str(),
        "possiblySent": in_doubt(&whole.deliveries),
        "createdAt": time(message.created_at),
        "deliveries": deliveries,
    });
    Ok(ok(StatusCode::OK, &body))
}

pub async fn list(State(hub): State<Hub>, caller: Caller, mut query: Query) -> Answer {
    let page = Page::read(&mut query, &hub, "notifications", caller.partner.partner_id)?;
    let (filter, overall) = message_filter(&mut query, "recipient", &caller.partner.region)?;
    query.close()?;
    let found = find(&hub, &caller.partner, &filter, overall, page).await?;
    let items: Vec<Value> = found
        .items
        .iter()
        .map(|(message, overall, row)| {
            let deliveries: Vec<Value> = row
                .deliveries
                .iter()
                .map(|(lane, status, _)| {
                    json!({"channel": lane.channel().as_str(), "status": status.as_notification_str()})
                })
                .collect();
            json!({
                "id": message.message_id.to_string(),
                "type": message.kind,
                "title": message.detail.title,
                "status": overall.as_str(),
                "createdAt": time(message.created_at),
                "deliveries": deliveries,
            })
        })
        .collect();
    let next = found.next.map(|last| cursor(&hub, "notifications", caller.partner.partner_id, last));
    Ok(ok(StatusCode::OK, &json!({"code": "0000", "items": items, "nextCursor": next})))
}
