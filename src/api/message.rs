//! Messages: their outside shapes and handlers.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::auth::Caller;
use super::delivery;
use super::error::Answer;
use super::page::{Page, cursor};
use super::request::{Id, Json, Query, ok};
use super::shape::{message_filter, message_id, time};
use crate::error::{Code, Fault, Refusal, Result};
use crate::flow;
use crate::flow::accept::Accepted;
use crate::flow::story::{Entry, Whole};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::delivery::Status;
use crate::model::intake::Rules;
use crate::model::message::{Message, NewMessage, Overall};
use crate::model::partner::Partner;
use crate::store::message::{Filter, Listed};

pub async fn accept(
    State(hub): State<Hub>,
    caller: Caller,
    mut query: Query,
    headers: HeaderMap,
    Json(body): Json<{ limits::BODY_BYTES }>,
) -> Answer {
    let dry_run = query.parse("dryRun", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    query.close()?;
    let mut message = crate::model::intake::message(&body, &hub.rules(&caller.partner))?;
    apply_key(&mut message, &headers)?;
    if dry_run {
        return Ok(ok(StatusCode::OK, &dry(&message, &hub.rules(&caller.partner))));
    }
    let accepted = flow::accept::accept(&hub, &caller.partner, message).await?;
    Ok(answer(&accepted, accepted_json(&accepted)))
}

/// `Idempotency-Key` means the same as `clientMsgId`; both given must agree.
pub fn apply_key(message: &mut NewMessage, headers: &HeaderMap) -> Result<()> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(()) };
    let visible =
        |k: &&str| !k.trim().is_empty() && k.len() <= limits::CLIENT_MSG_ID_CHARS && !k.contains(char::is_control);
    let key = key.to_str().ok().filter(visible);
    let key = key.filter(|_| given.next().is_none());
    let key = key.ok_or_else(|| bad_key("must be given once, as 1 to 128 visible characters"))?;
    match &message.client_msg_id {
        Some(id) if id != key => Err(bad_key("differs from clientMsgId; send one of them").into()),
        _ => {
            message.client_msg_id = Some(key.to_owned());
            Ok(())
        }
    }
}

fn bad_key(detail: &'static str) -> Refusal {
    let pointer = "Idempotency-Key".to_owned();
    Refusal::of(vec![Fault { pointer, reason: "idempotency_key_invalid", detail: detail.into(), code: Code::E001 }])
}

/// 202 for new, 200 for a repeated request.
pub fn answer(accepted: &Accepted, body: Value) -> Response {
    let status = if accepted.replayed { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = ok(status, &body);
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/messages/{}", accepted.message_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if accepted.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn accepted_json(accepted: &Accepted) -> Value {
    let deliveries: Vec<Value> = (1..)
        .zip(&accepted.deliveries)
        .map(|(no, (channel, to)): (u32, _)| {
            json!({
                "deliveryId": format!("{}-{no}", accepted.message_id),
                "channel": channel.as_str(),
                "to": to,
                "status": accepted.status.as_str(),
            })
        })
        .collect();
    json!({
        "code": "0000",
        "messageId": accepted.message_id.to_string(),
        "clientMsgId": accepted.client_msg_id,
        "status": Overall::Pending.as_str(),
        "createdAt": time(accepted.created_at),
        "deliveries": deliveries,
    })
}

/// What would happen, without anything happening.
fn dry(message: &NewMessage, rules: &Rules) -> Value {
    let waits = message.scheduled_at.is_some_and(|at| at > rules.now);
    let status = if waits { Status::Scheduled } else { Status::Pending };
    let deliveries: Vec<Value> = message
        .deliveries
        .iter()
        .map(|d| {
            json!({
                "channel": d.channel.as_str(), "to": d.shown(), "recipient": d.to, "status": status.as_str(),
                "content": d.content,
            })
        })
        .collect();
    let used: BTreeSet<(i16, Channel)> = message.deliveries.iter().map(|d| (d.content, d.channel)).collect();
    // Each content once: a body for ten thousand recipients is one body.
    let contents: Vec<Value> = message
        .detail
        .contents
        .iter()
        .zip(0..)
        .map(|(c, index)| {
            let channels = used.range((index, CHANNELS[0])..).take_while(|u| u.0 == index);
            let lengths: Vec<Value> = channels.filter_map(|(_, channel)| length(&c.body, *channel, rules)).collect();
            json!({"parts": 1, "bytes": c.bytes(), "subject": c.subject, "body": c.body, "lengths": lengths})
        })
        .collect();
    json!({
        "code": "0000", "dryRun": true, "clientMsgId": message.client_msg_id, "deliveries": deliveries,
        "contents": contents,
    })
}

/// How long a body is as this channel counts, and how long it may be.
fn length(body: &str, channel: Channel, rules: &Rules) -> Option<Value> {
    let limit = rules.limit(channel)?;
    let length = limit.measure.of(body).ok()?;
    Some(json!({"channel": channel.as_str(), "length": length, "limit": limit.max, "unit": limit.measure.unit()}))
}

pub async fn accept_batch(
    State(hub): State<Hub>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
    Json(body): Json<{ limits::BATCH_BYTES }>,
) -> Answer {
    query.close()?;
    if headers.contains_key("idempotency-key") {
        return Err(bad_key("is for one message; in a batch each message has its own clientMsgId").into());
    }
    let _turn = hub.intake.batch().await?;
    // Reading hundreds of messages takes milliseconds: beside the loops, not between them.
    let rules = hub.rules(&caller.partner);
    let messages = hub.shutdown.compute(move || crate::model::intake::batch(&body, &rules)).await??;
    let accepted = flow::accept::accept_all(&hub, &caller.partner, messages).await?;
    let all_replayed = accepted.iter().all(|a| a.replayed);
    let items: Vec<Value> = accepted
        .iter()
        .map(|a| {
            let mut item = accepted_json(a);
            item["replayed"] = a.replayed.into();
            item
        })
        .collect();
    let status = if all_replayed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(ok(status, &json!({"code": "0000", "messages": items})))
}

pub async fn get(State(hub): State<Hub>, caller: Caller, query: Query, Id(id): Id) -> Answer {
    query.close()?;
    let whole = flow::story::whole(&hub, &caller.partner, message_id(&id)?).await?;
    Ok(ok(StatusCode::OK, &whole_json(&whole)))
}

fn whole_json(whole: &Whole) -> Value {
    let deliveries: Vec<Value> = whole
        .deliveries
        .iter()
        .map(|row| {
            let attempts = whole.attempts.iter().filter(|a| a.no == row.no);
            delivery::json(row, Some(attempts.collect()))
        })
        .collect();
    let mut body = head_json(&whole.message, whole.overall);
    body["code"] = "0000".into();
    body["possiblySent"] = in_doubt(&whole.deliveries).into();
    body["contents"] = serde_json::to_value(&whole.message.detail.contents).unwrap_or_default();
    body["deliveries"] = deliveries.into();
    body
}

/// Some delivery did not succeed, and yet a provider may have taken it.
pub fn in_doubt(deliveries: &[crate::store::delivery::Row]) -> bool {
    deliveries.iter().any(|d| d.possibly_sent && !d.status.is_success())
}

fn head_json(message: &Message, overall: Overall) -> Value {
    json!({
        "messageId": message.message_id.to_string(),
        "clientMsgId": message.client_msg_id,
        "type": message.kind,
        "priority": message.priority.as_str(),
        "title": message.detail.title,
        "status": overall.as_str(),
        "createdAt": time(message.created_at),
        "scheduledAt": message.scheduled_at.map(time),
        "expiresAt": message.expires_at.map(time),
        "metadata": message.detail.metadata,
    })
}

/// A page of messages that a filter passes, and where the next page begins.
pub struct Found {
    pub items: Vec<(Message, Overall, Listed)>,
    pub next: Option<(Tsid, i16)>,
}

/// Walks the list until the page is full. The overall status is computed, so a filter on it looks at more rows than it
/// returns; a page looks at so many at most and may then be short, with a cursor to go on.
pub async fn find(
    hub: &Hub,
    partner: &Partner,
    filter: &Filter,
    overall: Option<Overall>,
    page: Page,
) -> Result<Found> {
    let mut below = page.after.map_or(page.below, |after| after.0.min(page.below));
    let mut items = Vec::new();
    let mut looked = 0;
    let limit = usize::try_from(page.limit).unwrap_or(0);
    loop {
        let window = if overall.is_some() { limits::PAGE_MAX } else { page.limit + 1 };
        let db = hub.store.api();
        let rows = crate::store::message::list(
            db,
            &hub.keyring,
            partner.partner_id,
            partner.shard,
            filter,
            below,
            page.from,
            window,
        );
        let rows = rows.await?;
        let last_window = (rows.len() as i64) < window;
        for row in rows {
            looked += 1;
            let status = Overall::of(row.deliveries.iter().map(|(lane, status, n)| (lane.channel(), *status, *n)));
            if items.len() == limit {
                return Ok(Found { items, next: Some((below, 0)) });
            }
            below = row.message.message_id;
            if overall.is_none_or(|wanted| wanted == status) {
                items.push((row.message.clone(), status, row));
            }
        }
        if last_window {
            return Ok(Found { items, next: None });
        }
        if looked >= limits::PAGE_LOOK || items.len() == limit {
            return Ok(Found { items, next: Some((below, 0)) });
        }
    }
}

pub async fn list(State(hub): State<Hub>, caller: Caller, mut query: Query) -> Answer {
    let page = Page::read(&mut query, &hub, "messages", caller.partner.partner_id)?;
    let (filter, overall) = message_filter(&mut query, "to", &caller.partner.region)?;
    query.close()?;
    let found = find(&hub, &caller.partner, &filter, overall, page).await?;
    let items: Vec<Value> = found
        .items
        .iter()
        .map(|(message, overall, row)| {
            let mut item = head_json(message, *overall);
            item["deliveryCount"] = row.deliveries.len().into();
            item
        })
        .collect();
    let next = found.next.map(|last| cursor(&hub, "messages", caller.partner.partner_id, last));
    Ok(ok(StatusCode::OK, &json!({"code": "0000", "items": items, "nextCursor": next})))
}

pub async fn timeline(State(hub): State<Hub>, caller: Caller, query: Query, Id(id): Id) -> Answer {
    query.close()?;
    let id = message_id(&id)?;
    let entries = flow::story::timeline(&hub, &caller.partner, id).await?;
    let entry = |e: Entry| {
        json!({
            "at": time(e.at),
            "what": e.what,
            "deliveryId": e.no.map(|no| format!("{id}-{no}")),
            "attempt": e.attempt,
            "detail": e.text,
        })
    };
    let items: Vec<Value> = entries.into_iter().map(entry).collect();
    Ok(ok(StatusCode::OK, &json!({"code": "0000", "messageId": id.to_string(), "items": items})))
}

pub async fn cancel(State(hub): State<Hub>, caller: Caller, query: Query, Id(id): Id) -> Answer {
    query.close()?;
    let id = message_id(&id)?;
    let rows = flow::cancel::cancel(&hub, &caller.partner, id).await?;
    let canceled = rows.iter().filter(|r| r.status == Status::Canceled).count();
    let requested = rows.iter().filter(|r| r.cancel_requested && !r.status.is_settled()).count();
    let deliveries: Vec<Value> = rows.iter().map(|row| delivery::json(row, None)).collect();
    let body = json!({
        "code": "0000",
        "messageId": id.to_string(),
        "canceled": canceled,
        "cancelRequested": requested,
        "deliveries": deliveries,
    });
    Ok(ok(StatusCode::OK, &body))
}
