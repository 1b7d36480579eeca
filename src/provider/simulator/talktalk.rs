//! Naver TalkTalk's chatbot API: `POST /chatbot/v1/event`. Every answer is an HTTP 200 that says in its JSON whether the
//! message was taken; nothing is told later. Recipients are keys that the vendor makes for each user of a channel.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Answered;
use super::magic::{Told, Why};
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
    if told(user) == Some(Told::NotAUser) {
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
