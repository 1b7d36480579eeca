//! A gateway of one's own, for the adapter of the same name: `POST /messages` takes JSON that is signed as Standard Webhooks
//! says, and what became of it is told in JSON signed in the same way, with the same secret.

use chrono::{DateTime, SecondsFormat, Utc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::Answered;
use super::vendor::{
    Call, End, News, Receipts, Setup, Sheet, Taken, Trade, Vendor, json as answer, refuse_by_status, refused,
    refused_by_status, text,
};
use crate::clock::Clock;
use crate::error::Result;
use crate::model::signature;
use crate::shutdown::Shutdown;

/// What both sides sign with.
pub const SECRET: &str = "whsec_c2ltdWxhdG9yLWdhdGV3YXktc2VjcmV0LTAwMDA=";
pub const PATH: &str = "/messages";

const TRADE: Trade = Trade {
    name: "gateway",
    refusal: (503, "unavailable"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: refuse_by_status,
    by_users: |channel| matches!(channel, "KAKAO_ALIMTALK" | "KAKAO_BRAND_MESSAGE" | "RCS" | "NAVER_TALK"),
    receipts: Some(Receipts { product: |_| Some(""), envelope, at_once: 100, again: &[5.0, 60.0, 600.0] }),
};

pub async fn start(setup: Setup, shutdown: &Shutdown) -> Result<Vendor> {
    Vendor::start(&TRADE, setup, shutdown).await
}

async fn respond(vendor: Vendor, call: Call) -> Answered {
    if (call.method.clone(), call.path.as_str()) != (Method::POST, PATH) {
        return Ok(refused(404, "not_found"));
    }
    if !is_signed(&call, Clock::host_now()) {
        return Ok(refused(401, "signature"));
    }
    let body: Value = match call.is_json().then(|| serde_json::from_slice(&call.body)) {
        Some(Ok(body)) => body,
        Some(Err(_)) => return Ok(refused(400, "not_json")),
        None => return Ok(refused(415, "unsupported_media_type")),
    };
    let (Some(id), Some(channel), Some(to), Some(said)) =
        (text(&body, "id"), text(&body, "channel"), text(&body, "to"), text(&body, "body"))
    else {
        return Ok(refused(422, "id_channel_to_and_body_are_needed"));
    };
    let take = || match vendor.refuses(to).and_then(refused_by_status) {
        Some(refusal) => refusal,
        None => taken(&vendor, id, channel, to, said, &body),
    };
    vendor.act(&[(to, said)], take).await
}

fn taken(vendor: &Vendor, id: &str, channel: &str, to: &str, said: &str, body: &Value) -> Response<Full<Bytes>> {
    let own = format!("gw-{:012}", vendor.number());
    vendor.take(Taken {
        id: own.clone(),
        request: own.clone(),
        place: 1,
        kind: channel.to_owned(),
        from: None,
        to: to.to_owned(),
        subject: text(body, "subject").map(str::to_owned),
        text: said.to_owned(),
        reference: Some(text(body, "reference").unwrap_or(id).to_owned()),
        at: vendor.now(),
        options: json!({ "templateCode": body.get("templateCode"), "createdAt": body.get("createdAt") }),
    });
    answer(202, &json!({ "id": own }))
}

/// By the one scheme, in time, over the bytes that came.
fn is_signed(call: &Call, now: DateTime<Utc>) -> bool {
    let (Some(id), Some(at), Some(given)) =
        (call.header("webhook-id"), call.header("webhook-timestamp"), call.header("webhook-signature"))
    else {
        return false;
    };
    let Ok(at) = at.parse::<i64>() else { return false };
    let in_time = (now.timestamp() - at).abs() <= signature::TOLERANCE_SECONDS;
    let mine = signature::standard_signature(SECRET, id, at, &call.body);
    in_time && mine.is_some_and(|mine| given.split(' ').any(|given| given == mine))
}

fn envelope(news: &[News], _tries: u32, now: DateTime<Utc>) -> Sheet {
    let receipts: Vec<Value> = news.iter().map(receipt).collect();
    let body = json!({ "receipts": receipts });
    let id = news.first().map(|news| news.event.clone()).unwrap_or_default();
    let headers = signature::headers(SECRET, None, &id, now.timestamp(), body.to_string().as_bytes());
    Sheet { body, headers }
}

fn receipt(news: &News) -> Value {
    let (status, code) = match news.standing.end {
        End::Pending => ("ACCEPTED", None),
        End::Delivered => ("DELIVERED", None),
        End::Failed => ("FAILED", Some("carrier_refused")),
        End::Expired => ("EXPIRED", None),
        End::NotAUser => ("FAILED", Some("not_a_user")),
    };
    json!({
        "eventId": news.event,
        "reference": news.standing.taken.reference,
        "status": status,
        "code": code,
        "detail": code.map(|code| code.replace('_', " ")),
        "occurredAt": news.standing.at.to_rfc3339_opts(SecondsFormat::Millis, true),
    })
}
