//! Naver TalkTalk's chatbot API: `POST /chatbot/v1/event`. Every answer is an HTTP 200 that says in its JSON whether the
//! message was taken; nothing is told later. Recipients are keys that the vendor makes for each user of a channel.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Answered;
use super::magic::{ReceiptPlan, Why};
use super::vendor::{Call, No, Setup, Taken, Trade, Vendor, json as answer, text, told};
use crate::error::Result;
use crate::shutdown::Shutdown;

/// What is let in.
pub const AUTHORIZATION: &str = "ct_simulator_0000000000000000";
const PATH: &str = "/chatbot/v1/event";
const TEXT_CHARS: usize = 10_000;
const KEY_CHARS: usize = 100;
const CONTENTS: [&str; 3] = ["textContent", "imageContent", "compositeContent"];

const TRADE: Trade = Trade {
    name: "talktalk",
    refusal: (500, "99"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: |no| match no {
        No::Credentials => refused("01", "authorization 오류"),
        No::Limited => super::text(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests"),
        No::Scripted(status, code) => answer(status, &json!({ "success": false, "resultCode": code })),
    },
    by_users: |_| true,
    receipts: None,
};

pub async fn start(setup: Setup, shutdown: &Shutdown) -> Result<Vendor> {
    Vendor::start(&TRADE, setup, shutdown).await
}

fn refused(code: &str, message: &str) -> Response<Full<Bytes>> {
    answer(200, &json!({ "success": false, "resultCode": code, "resultMessage": message }))
}

async fn respond(vendor: Vendor, call: Call) -> Answered {
    if (call.method.clone(), call.path.as_str()) != (Method::POST, PATH) {
        return Ok(answer(404, &json!({ "success": false, "resultCode": "99", "resultMessage": "not found" })));
    }
    if call.header("authorization") != Some(AUTHORIZATION) {
        return Ok(refused("01", "authorization 오류"));
    }
    let (user, said, body) = match call.is_json().then(|| parse(&call.body)) {
        Some(Ok(parsed)) => parsed,
        Some(Err(message)) => return Ok(refused("02", message)),
        None => return Ok(refused("02", "content-type 오류")),
    };
    let take = || {
        if let Some(refusal) = refusal(&vendor, &user) {
            return refusal;
        }
        let id = format!("talk-{:012}", vendor.number());
        vendor.take(Taken {
            id: id.clone(),
            request: id,
            place: 1,
            kind: "send".to_owned(),
            from: None,
            to: user.clone(),
            subject: None,
            text: said.clone(),
            reference: None,
            at: vendor.now(),
            options: body,
        });
        answer(200, &json!({ "success": true, "resultCode": "00" }))
    };
    vendor.act(&[(&user, &said)], take).await
}

fn refusal(vendor: &Vendor, user: &str) -> Option<Response<Full<Bytes>>> {
    let nobody = "존재하지 않는 user";
    if told(user) == Some(ReceiptPlan::NotAUser) {
        return Some(refused("99", nobody));
    }
    match vendor.refuses(user)? {
        // What stands before the API says so: the API itself has one word for all the rest.
        Why::Internal => Some(super::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")),
        Why::Address | Why::OptedOut => Some(refused("99", nobody)),
        Why::Balance => Some(refused("99", "한도 초과")),
        Why::Credentials => None,
    }
}

/// The user, what is said, and all of it; or the vendor's words for what is wrong.
fn parse(body: &[u8]) -> Result<(String, String, Value), &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "request json 문자열 파싱 오류")?;
    if text(&body, "event") != Some("send") {
        return Err("event 오류");
    }
    let user = text(&body, "user").filter(|user| user.len() <= KEY_CHARS).ok_or("user 오류")?.to_owned();
    if CONTENTS.iter().filter(|name| body.get(**name).is_some()).count() != 1 {
        return Err("textContent, imageContent, compositeContent 중 하나만 필요");
    }
    let said = match body.get("textContent") {
        Some(content) => text(content, "text").ok_or("textContent.text 오류")?,
        None => "",
    };
    if said.chars().count() > TEXT_CHARS {
        return Err("textContent.text 길이 초과");
    }
    Ok((user, said.to_owned(), body))
}

#[cfg(test)]
mod tests {
    use super::super::vendor::testing::Caller;
    use super::*;

    /// S0-41: the verdict is in the answer, and nothing else comes; nearly always the answer is a 200.
    #[tokio::test]
    async fn the_verdict_is_in_the_answer() {
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
        assert_eq!(caller.vendor.taken(), 0);
        assert_eq!(ask(&headers, &good).await, said(200, "00"));
        caller.vendor.tell().await;
        assert_eq!((caller.vendor.taken(), caller.hub.heard().len()), (1, 0));
    }
}
