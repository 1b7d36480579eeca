//! Simulates an operator's own gateway, for the adapter `gateway`: `POST /messages` takes JSON signed by Standard
//! Webhooks, and its receipts are JSON signed in the same way, with the same secret.

use chrono::{DateTime, SecondsFormat, Utc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::ServiceResult;
use super::vendor::{
    AcceptedMessage, ApiRequest, CallbackRequest, CallbackRules, MessageResult, ReceiptEvent, SimulatorSetup,
    VendorProfile, VendorSimulator, json_response, refuse_by_status, refused, refused_by_status, text_field,
};
use crate::clock::Clock;
use crate::error::Result;
use crate::model::signature;
use crate::shutdown::Shutdown;

/// The secret that signs both directions.
pub const SECRET: &str = "whsec_c2ltdWxhdG9yLWdhdGV3YXktc2VjcmV0LTAwMDA=";
/// The path of the API.
pub const PATH: &str = "/messages";

const PROFILE: VendorProfile = VendorProfile {
    name: "gateway",
    refusal: (503, "unavailable"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: refuse_by_status,
    needs_app_user: |channel| matches!(channel, "KAKAO_ALIMTALK" | "KAKAO_BRAND_MESSAGE" | "RCS" | "NAVER_TALK"),
    callbacks: Some(CallbackRules {
        product: |_| Some(""),
        build: build_callback,
        max_events: 100,
        retry_after_s: &[5.0, 60.0, 600.0],
    }),
};

/// Starts the simulator.
///
/// # Errors
/// Those of `VendorSimulator::start`.
pub async fn start(setup: SimulatorSetup, shutdown: &Shutdown) -> Result<VendorSimulator> {
    VendorSimulator::start(&PROFILE, setup, shutdown).await
}

async fn respond(vendor: VendorSimulator, call: ApiRequest) -> ServiceResult {
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
    let (Some(id), Some(channel), Some(to), Some(body_text)) =
        (text_field(&body, "id"), text_field(&body, "channel"), text_field(&body, "to"), text_field(&body, "body"))
    else {
        return Ok(refused(422, "id_channel_to_and_body_are_needed"));
    };
    let accept_message = || match vendor.refusal_reason(to).and_then(refused_by_status) {
        Some(refusal) => refusal,
        None => accept(&vendor, id, channel, to, body_text, &body),
    };
    vendor.answer_with(&[(to, body_text)], accept_message).await
}

fn accept(
    vendor: &VendorSimulator,
    id: &str,
    channel: &str,
    to: &str,
    body_text: &str,
    body: &Value,
) -> Response<Full<Bytes>> {
    let message_id = format!("gw-{:012}", vendor.next_number());
    vendor.accept(AcceptedMessage {
        id: message_id.clone(),
        request: message_id.clone(),
        place: 1,
        kind: channel.to_owned(),
        from: None,
        to: to.to_owned(),
        subject: text_field(body, "subject").map(str::to_owned),
        text: body_text.to_owned(),
        reference: Some(text_field(body, "reference").unwrap_or(id).to_owned()),
        at: vendor.now(),
        options: json!({ "templateCode": body.get("templateCode"), "createdAt": body.get("createdAt") }),
    });
    json_response(202, &json!({ "id": message_id }))
}

/// Returns whether the Standard Webhooks headers sign this body, within the time tolerance.
fn is_signed(call: &ApiRequest, now: DateTime<Utc>) -> bool {
    let (Some(id), Some(at), Some(signatures)) =
        (call.header("webhook-id"), call.header("webhook-timestamp"), call.header("webhook-signature"))
    else {
        return false;
    };
    let Ok(at) = at.parse::<i64>() else { return false };
    let in_time = (now.timestamp() - at).abs() <= signature::TOLERANCE_SECONDS;
    let expected = signature::standard_signature(SECRET, id, at, &call.body);
    in_time && expected.is_some_and(|expected| signatures.split(' ').any(|signatures| signatures == expected))
}

fn build_callback(events: &[ReceiptEvent], _tries: u32, now: DateTime<Utc>) -> CallbackRequest {
    let receipts: Vec<Value> = events.iter().map(receipt).collect();
    let body = json!({ "receipts": receipts });
    let id = events.first().map(|events| events.event_id.clone()).unwrap_or_default();
    let headers = signature::headers(SECRET, None, &id, now.timestamp(), body.to_string().as_bytes());
    CallbackRequest { body, headers }
}

fn receipt(event: &ReceiptEvent) -> Value {
    let (status, code) = match event.state.result {
        MessageResult::Pending => ("ACCEPTED", None),
        MessageResult::Delivered => ("DELIVERED", None),
        MessageResult::Failed => ("FAILED", Some("carrier_refused")),
        MessageResult::Expired => ("EXPIRED", None),
        MessageResult::NotAUser => ("FAILED", Some("not_a_user")),
    };
    json!({
        "eventId": event.event_id,
        "reference": event.state.message.reference,
        "status": status,
        "code": code,
        "detail": code.map(|code| code.replace('_', " ")),
        "occurredAt": event.state.changed_at.to_rfc3339_opts(SecondsFormat::Millis, true),
    })
}
