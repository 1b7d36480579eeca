//! Simulates Naver TalkTalk's chatbot API v1: `POST /chatbot/v1/event`. Every response is an HTTP 200 whose JSON says
//! whether the message was accepted; there are no receipts. Recipients are keys that Naver gives each user of a
//! channel.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::ServiceResult;
use super::magic::{ReceiptPlan, RefusalReason};
use super::vendor::{
    AcceptedMessage, ApiRequest, RequestRefusal, SimulatorSetup, VendorProfile, VendorSimulator, json_response,
    receipt_plan, text_field,
};
use crate::error::Result;
use crate::shutdown::Shutdown;

/// The only valid Authorization value.
pub const AUTHORIZATION: &str = "ct_simulator_0000000000000000";
const PATH: &str = "/chatbot/v1/event";
const TEXT_CHARS: usize = 10_000;
const KEY_CHARS: usize = 100;
const CONTENTS: [&str; 3] = ["textContent", "imageContent", "compositeContent"];

const PROFILE: VendorProfile = VendorProfile {
    name: "talktalk",
    refusal: (500, "99"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: |no| match no {
        RequestRefusal::Credentials => refused("01", "authorization 오류"),
        RequestRefusal::Limited => super::text_response(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests"),
        RequestRefusal::Scripted(status, code) => {
            json_response(status, &json!({ "success": false, "resultCode": code }))
        }
    },
    needs_app_user: |_| true,
    callbacks: None,
};

/// Starts the simulator.
///
/// # Errors
/// Those of `VendorSimulator::start`.
pub async fn start(setup: SimulatorSetup, shutdown: &Shutdown) -> Result<VendorSimulator> {
    VendorSimulator::start(&PROFILE, setup, shutdown).await
}

fn refused(code: &str, message: &str) -> Response<Full<Bytes>> {
    json_response(200, &json!({ "success": false, "resultCode": code, "resultMessage": message }))
}

async fn respond(vendor: VendorSimulator, call: ApiRequest) -> ServiceResult {
    if (call.method.clone(), call.path.as_str()) != (Method::POST, PATH) {
        return Ok(json_response(404, &json!({ "success": false, "resultCode": "99", "resultMessage": "not found" })));
    }
    if call.header("authorization") != Some(AUTHORIZATION) {
        return Ok(refused("01", "authorization 오류"));
    }
    let (user, message_text, body) = match call.is_json().then(|| parse(&call.body)) {
        Some(Ok(parsed)) => parsed,
        Some(Err(message)) => return Ok(refused("02", message)),
        None => return Ok(refused("02", "content-type 오류")),
    };
    let take = || {
        if let Some(refusal) = refusal(&vendor, &user) {
            return refusal;
        }
        let id = format!("talk-{:012}", vendor.next_number());
        vendor.accept(AcceptedMessage {
            id: id.clone(),
            request: id,
            place: 1,
            kind: "send".to_owned(),
            from: None,
            to: user.clone(),
            subject: None,
            text: message_text.clone(),
            reference: None,
            at: vendor.now(),
            options: body,
        });
        json_response(200, &json!({ "success": true, "resultCode": "00" }))
    };
    vendor.answer_with(&[(&user, &message_text)], take).await
}

fn refusal(vendor: &VendorSimulator, user: &str) -> Option<Response<Full<Bytes>>> {
    let no_such_user = "존재하지 않는 user";
    if receipt_plan(user) == Some(ReceiptPlan::NotAUser) {
        return Some(refused("99", no_such_user));
    }
    match vendor.refusal_reason(user)? {
        // A proxy in front of the API answers 503; the API itself has one code for all other failures.
        RefusalReason::Internal => Some(super::text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")),
        RefusalReason::Address | RefusalReason::OptedOut => Some(refused("99", no_such_user)),
        RefusalReason::Balance => Some(refused("99", "한도 초과")),
        RefusalReason::Credentials => None,
    }
}

/// Returns user, text and the whole body; or the vendor's text for what is wrong.
fn parse(body: &[u8]) -> Result<(String, String, Value), &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "request json 문자열 파싱 오류")?;
    if text_field(&body, "event") != Some("send") {
        return Err("event 오류");
    }
    let user = text_field(&body, "user").filter(|user| user.len() <= KEY_CHARS).ok_or("user 오류")?.to_owned();
    if CONTENTS.iter().filter(|name| body.get(**name).is_some()).count() != 1 {
        return Err("textContent, imageContent, compositeContent 중 하나만 필요");
    }
    let message_text = match body.get("textContent") {
        Some(content) => text_field(content, "text").ok_or("textContent.text 오류")?,
        None => "",
    };
    if message_text.chars().count() > TEXT_CHARS {
        return Err("textContent.text 길이 초과");
    }
    Ok((user, message_text.to_owned(), body))
}

#[cfg(test)]
mod tests {
    use super::super::vendor::testing::Caller;
    use super::*;

    /// S0-41: the response is final, no receipt follows, and nearly every response is a 200.
    #[tokio::test]
    async fn the_response_is_final() {
        let caller = Caller::at(|setup, shutdown| async move { start(setup, &shutdown).await }).await;
        let headers = [("authorization", AUTHORIZATION), ("content-type", "application/json;charset=UTF-8")];
        let ask = async |headers: &[(&str, &str)], body: &Value| {
            let (status, body) = caller.ask(Method::POST, PATH, headers, &body.to_string()).await.unwrap();
            (status, body["resultCode"].as_str().unwrap_or_default().to_owned())
        };
        let said = |status: u16, code: &str| (status, code.to_owned());
        let to = |user: &str| json!({ "event": "send", "user": user, "textContent": { "text": "안녕" } });
        let good = to("al-2eGuGr5WQOnco1_V-FQ");
        assert_eq!(ask(&[("authorization", "ct_other"), headers[1]], &good).await, said(200, "01"));
        assert_eq!(ask(&headers[..1], &good).await, said(200, "02"));
        for wrong in [
            json!([]),
            json!({ "event": "echo", "user": "u", "textContent": { "text": "x" } }),
            json!({ "event": "send", "textContent": { "text": "x" } }),
            json!({ "event": "send", "user": "u" }),
            json!({ "event": "send", "user": "u", "textContent": { "text": "x" }, "imageContent": {} }),
            json!({ "event": "send", "user": "u", "textContent": { "text": "x".repeat(10_001) } }),
        ] {
            assert_eq!(ask(&headers, &wrong).await, said(200, "02"), "{wrong}");
        }
        for (user, verdict) in [
            ("fail", said(200, "99")),
            ("not-a-user", said(200, "99")),
            ("opted-out", said(200, "99")),
            ("temporary", said(503, "")),
            ("credentials", said(200, "01")),
            ("throttled", said(429, "")),
        ] {
            assert_eq!(ask(&headers, &to(user)).await, verdict, "{user}");
        }
        assert_eq!(caller.vendor.accepted_count(), 0);
        assert_eq!(ask(&headers, &good).await, said(200, "00"));
        caller.vendor.send_all_receipts().await;
        assert_eq!((caller.vendor.accepted_count(), caller.hub.take_received().len()), (1, 0));
    }
}
