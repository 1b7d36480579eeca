//! Simulates NHN Cloud: SMS v3.0, KakaoTalk Bizmessage v2.3 (AlimTalk) and RCS Bizmessage v1.0 at one address. Nearly
//! every response is an HTTP 200 whose JSON header says whether the request was accepted; then each recipient has its
//! own code.
//!
//! Webhooks are sent for SMS (`sms`) and AlimTalk (`alimtalk`), with a constant signature header, fields misspelt as in
//! the vendor's own example, and Korean times without a zone. Results are also listed by the time they changed. RCS
//! results are only listed.

use std::collections::HashSet;

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeDelta, Utc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response};
use serde_json::{Map, Value, json};

use super::ServiceResult;
use super::magic::RefusalReason;
use super::vendor::{
    AcceptedMessage, ApiRequest, CallbackRequest, CallbackRules, MessageResult, MessageState, ReceiptEvent,
    RequestRefusal, SimulatorSetup, VendorProfile, VendorSimulator, is_recipient, is_sender, json_response, text_field,
};
use crate::error::Result;
use crate::model::cp949;
use crate::shutdown::Shutdown;

/// The only valid app key and secret key.
pub const APP_KEY: &str = "simulator0appkey";
pub const SECRET_KEY: &str = "simulator0secretkey";
/// The signature header of its webhooks.
pub const SIGNATURE: &str = "simulator-webhook-signature";
/// The only valid sender key, 40 characters as the vendor's.
pub const SENDER_KEY: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only valid RCS brand.
pub const BRAND_ID: &str = "sampleBrandId";

const MAX_RECIPIENTS: usize = 1000;
const KEY_CHARS: usize = 100;
const DEFAULT_PAGE: usize = 15;
const MAX_PAGE: usize = 1000;
const IDEMPOTENCY_WINDOW: TimeDelta = TimeDelta::minutes(10);
const SECONDS: &str = "%Y-%m-%d %H:%M:%S";
const MINUTES: &str = "%Y-%m-%d %H:%M";
const KST: Option<FixedOffset> = FixedOffset::east_opt(9 * 3600);

const PROFILE: VendorProfile = VendorProfile {
    name: "nhn",
    refusal: (500, "-9999"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: |no| match no {
        RequestRefusal::Credentials => refused(-1000, "Invalid appKey."),
        RequestRefusal::Limited => json_response(429, &header(-50201, "Too many requests.")),
        RequestRefusal::Scripted(status, code) => {
            json_response(status, &header(code.parse().unwrap_or(-9999), "simulated"))
        }
    },
    needs_app_user: |kind| !matches!(kind, "SMS" | "LMS" | "MMS" | "AUTH"),
    callbacks: Some(CallbackRules {
        product,
        build: build_callback,
        max_events: 100,
        retry_after_s: &[10.0, 60.0, 300.0],
    }),
};

/// Starts the simulator.
///
/// # Errors
/// Those of `VendorSimulator::start`.
pub async fn start(setup: SimulatorSetup, shutdown: &Shutdown) -> Result<VendorSimulator> {
    VendorSimulator::start(&PROFILE, setup, shutdown).await
}

/// Returns the callback's product for a kind of message; RCS has no webhooks.
fn product(kind: &str) -> Option<&'static str> {
    match kind {
        "ALIMTALK" => Some("alimtalk"),
        kind if kind.starts_with("RCS_") => None,
        _ => Some("sms"),
    }
}

fn header(code: i64, message: &str) -> Value {
    json!({ "header": { "isSuccessful": code == 0, "resultCode": code, "resultMessage": message } })
}

fn refused(code: i64, message: &str) -> Response<Full<Bytes>> {
    json_response(200, &header(code, message))
}

fn successful(mut body: Value) -> Response<Full<Bytes>> {
    body["header"] = header(0, "SUCCESS")["header"].clone();
    json_response(200, &body)
}

type Refusal = (i64, &'static str);
type GetResult = Result<Response<Full<Bytes>>, Refusal>;
const NO_MESSAGE: Refusal = (-2017, "There is no such message.");

async fn respond(vendor: VendorSimulator, call: ApiRequest) -> ServiceResult {
    let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
    let (keys, rest) = match parts.as_slice() {
        ["sms", "v3.0", "appKeys", app, rest @ ..] => ((Some(*app), call.header("x-secret-key")), ("sms", rest)),
        ["alimtalk", "v2.3", "appkeys", app, rest @ ..] => ((Some(*app), call.header("x-secret-key")), ("talk", rest)),
        ["rcs", "v1.0", rest @ ..] => ((call.header("x-tc-app-key"), call.header("x-secret-key")), ("rcs", rest)),
        _ => return Ok(json_response(404, &header(-9998, "Not found."))),
    };
    if keys.0 != Some(APP_KEY) {
        return Ok(refused(-1000, "Invalid appKey."));
    }
    if keys.1 != Some(SECRET_KEY) {
        return Ok(refused(-1001, "Invalid secretKey."));
    }
    let done = match (&call.method, rest) {
        (&Method::POST, ("sms", ["sender", kind @ ..])) => send_texts(&vendor, &call, kind).await,
        (&Method::POST, ("talk", ["raw-messages" | "messages"])) => send_alimtalk(&vendor, &call).await,
        (&Method::POST, ("rcs", ["messages", kind])) => send_rcs(&vendor, &call, kind).await,
        (&Method::GET, rest) => get(&vendor, &call, rest).map(Ok),
        _ => Err(NOT_FOUND),
    };
    done.unwrap_or_else(|(code, message)| Ok(refused(code, message)))
}

const NOT_FOUND: Refusal = (-9998, "Not found.");

fn get(vendor: &VendorSimulator, call: &ApiRequest, rest: (&str, &[&str])) -> GetResult {
    match rest {
        ("sms", ["message-results"]) => list_text_results(vendor, call),
        ("sms", ["sender", kind]) => list_texts(vendor, call, kind),
        ("sms", ["sender", _, request]) => get_text(vendor, call, request),
        ("talk", ["message-results"]) => list_alimtalk_results(vendor, call),
        ("talk", ["messages"]) => list_alimtalk(vendor, call),
        ("talk", ["messages", request, place]) => get_alimtalk(vendor, request, place),
        ("rcs", ["messages", kind]) => list_rcs(vendor, call, kind),
        ("rcs", ["messages", kind, id]) => get_rcs(vendor, kind, id),
        _ => Err(NOT_FOUND),
    }
}

/// Parses a request's JSON.
fn parse_json(call: &ApiRequest) -> Result<Value, Refusal> {
    if !call.is_json() {
        return Err((-9996, "Content-Type is not application/json."));
    }
    serde_json::from_slice(&call.body).map_err(|_| (-9997, "The JSON cannot be read."))
}

fn recipients(body: &Value) -> Result<&Vec<Value>, Refusal> {
    match body["recipientList"].as_array() {
        Some(list) if list.len() > MAX_RECIPIENTS => Err((-2016, "Up to 1,000 recipients.")),
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err((-2018, "There is no recipient.")),
    }
}

/// One recipient of a request, with its text and the code it is refused with.
struct Draft {
    to: String,
    text: String,
    reference: Option<String>,
    refusal: Option<i64>,
}

fn draft(recipient: &Value, message_text: &str, invalid: i64) -> Draft {
    let international = text_field(recipient, "internationalRecipientNo").and_then(|no| no.strip_prefix("82"));
    let to =
        text_field(recipient, "recipientNo").map(|no| no.replace('-', "")).or(international.map(|no| format!("0{no}")));
    let to = to.unwrap_or_default();
    let reference =
        text_field(recipient, "recipientGroupingKey").filter(|key| key.len() <= KEY_CHARS).map(str::to_owned);
    let refusal = (!is_recipient(&to)).then_some(invalid);
    Draft { to, text: message_text.to_owned(), reference, refusal }
}

/// What all messages of a request have in common.
struct Group<'g> {
    kind: &'g str,
    from: Option<&'g str>,
    subject: Option<&'g str>,
    options: Value,
}

/// Accepts the messages that are not refused. Returns the request's id and each recipient's result.
fn accept_valid(
    vendor: &VendorSimulator,
    drafts: &[Draft],
    group: &Group<'_>,
    code_of: fn(RefusalReason) -> Option<i64>,
) -> (String, Vec<Value>) {
    let now = vendor.now();
    let request = format!("{}nh{:08}", kst(now).format("%Y%m%d%H%M%S"), vendor.next_number());
    let mut verdicts = Vec::new();
    for (n, draft) in drafts.iter().enumerate() {
        let refusal = draft.refusal.or_else(|| vendor.refusal_reason(&draft.to).and_then(code_of));
        let (result, message) = refusal.map_or((0, "SUCCESS"), |code_of| (code_of, "FAILURE"));
        verdicts.push(json!({
            "recipientNo": draft.to, "resultCode": result, "resultMessage": message, "recipientSeq": n + 1,
            "recipientGroupingKey": draft.reference,
        }));
        if refusal.is_some() {
            continue;
        }
        vendor.accept(AcceptedMessage {
            id: format!("{request}-{:04}", n + 1),
            request: request.clone(),
            place: n + 1,
            kind: group.kind.to_owned(),
            from: group.from.map(str::to_owned),
            to: draft.to.clone(),
            subject: group.subject.map(str::to_owned),
            text: draft.text.clone(),
            reference: draft.reference.clone(),
            at: now,
            options: group.options.clone(),
        });
    }
    (request, verdicts)
}

fn recipients_and_texts(drafts: &[Draft]) -> Vec<(&str, &str)> {
    drafts.iter().map(|draft| (draft.to.as_str(), draft.text.as_str())).collect()
}

async fn send_texts(vendor: &VendorSimulator, call: &ApiRequest, path: &[&str]) -> Result<ServiceResult, Refusal> {
    let body = parse_json(call)?;
    let (kind, standard, max_chars) = match path {
        ["sms"] => ("SMS", 90, 255),
        ["auth", "sms"] => ("AUTH", 90, 255),
        ["mms"] if body["attachFileIdList"].as_array().is_some_and(|list| !list.is_empty()) => ("MMS", 2000, 4000),
        ["mms"] => ("LMS", 2000, 4000),
        _ => return Err((-9998, "There is no such sender.")),
    };
    let message_text = text_field(&body, "body").ok_or((4, "The body is required."))?;
    let title = text_field(&body, "title");
    if matches!(kind, "LMS" | "MMS") && title.is_none() {
        return Err((4, "The title is required."));
    }
    if kind == "AUTH"
        && !["auth", "password", "verif", "인증", "비밀번호"].iter().any(|word| message_text.contains(word))
    {
        return Err((-8000, "There is no word of authentication in it."));
    }
    let message_text = stored_text(message_text, standard, max_chars)?;
    let title = title.map(|title| stored_text(title, 40, 120)).transpose()?;
    let from = text_field(&body, "sendNo").unwrap_or_default().replace('-', "");
    if !is_sender(&from) || !vendor.is_registered(&from) {
        return Err((-2312, "The sender number is not registered."));
    }
    let drafts: Vec<Draft> =
        recipients(&body)?.iter().map(|recipient| draft(recipient, &message_text, -2019)).collect();
    let grouping = body["senderGroupingKey"].clone();
    let options = json!({ "senderGroupingKey": grouping });
    let group = Group { kind, from: Some(&from), subject: title.as_deref(), options };
    let accept = || {
        let (request, verdicts) = accept_valid(vendor, &drafts, &group, text_refusal);
        let data = json!({ "requestId": request, "statusCode": "2", "senderGroupingKey": grouping,
            "sendResultList": verdicts });
        successful(json!({ "body": { "data": data } }))
    };
    Ok(vendor.answer_with(&recipients_and_texts(&drafts), accept).await)
}

fn text_refusal(reason: RefusalReason) -> Option<i64> {
    match reason {
        RefusalReason::Address => Some(-2019),
        RefusalReason::Internal => Some(-2021),
        RefusalReason::OptedOut => Some(-6001),
        RefusalReason::Balance => Some(-2052),
        RefusalReason::Credentials => None,
    }
}

/// Returns a text as the vendor stores it: characters outside CP949 become question marks, and a text longer than
/// `standard_bytes` is cut silently.
///
/// # Errors
/// The vendor's code and text if it has emoji, or more than `most_chars` characters.
fn stored_text(original: &str, standard_bytes: usize, max_chars: usize) -> Result<String, Refusal> {
    if original.chars().count() > max_chars {
        return Err((-2015, "The title or the body is too long."));
    }
    let is_emoji = |c: char| matches!(c, '\u{1f000}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{fe0f}' | '\u{200d}');
    let (mut stored, mut bytes) = (String::new(), 0);
    for c in original.chars() {
        let (c, width) = match cp949::length(c.encode_utf8(&mut [0; 4])) {
            Ok(width) => (c, width),
            Err(_) if is_emoji(c) => return Err((-2023, "There are characters that cannot be sent.")),
            Err(_) => ('?', 1),
        };
        bytes += width;
        if bytes > standard_bytes {
            break;
        }
        stored.push(c);
    }
    Ok(stored)
}

async fn send_alimtalk(vendor: &VendorSimulator, call: &ApiRequest) -> Result<ServiceResult, Refusal> {
    let body = parse_json(call)?;
    if text_field(&body, "senderKey") != Some(SENDER_KEY) {
        return Err((-1006, "Invalid senderKey."));
    }
    let template = text_field(&body, "templateCode").ok_or((-3003, "There is no such template."))?;
    let list = recipients(&body)?;
    let raw = call.path.ends_with("/raw-messages");
    let mut drafts = Vec::new();
    for recipient in list {
        let message_text = match (raw, text_field(recipient, "content")) {
            (true, None) => return Err((4, "The content is required.")),
            (true, Some(content)) => content.to_owned(),
            (false, _) => recipient["templateParameter"].to_string(),
        };
        let mut draft = draft(recipient, &message_text, -5000);
        if message_text.chars().count() > 1000 && draft.refusal.is_none() {
            draft.refusal = Some(-3010);
        }
        drafts.push(draft);
    }
    let key = call.header("x-nc-api-idempotency-key").map(|key| format!("idempotency {key}"));
    let grouping = body["senderGroupingKey"].clone();
    let options = json!({ "senderGroupingKey": grouping, "senderKey": SENDER_KEY, "templateCode": template });
    let group = Group { kind: "ALIMTALK", from: None, subject: None, options };
    let accept = || {
        if key.is_some_and(|key| !vendor.first_use(&key, IDEMPOTENCY_WINDOW)) {
            return refused(-1005, "The idempotency key was used within the last 10 minutes.");
        }
        let (request, verdicts) = accept_valid(vendor, &drafts, &group, alimtalk_refusal);
        let message = json!({ "requestId": request, "senderGroupingKey": grouping, "sendResults": verdicts });
        successful(json!({ "message": message }))
    };
    Ok(vendor.answer_with(&recipients_and_texts(&drafts), accept).await)
}

fn alimtalk_refusal(reason: RefusalReason) -> Option<i64> {
    match reason {
        RefusalReason::Address => Some(-5000),
        RefusalReason::Internal => Some(-7000),
        // At the vendor, that a user blocked AlimTalk is only found out later (3020).
        RefusalReason::OptedOut => Some(-6001),
        RefusalReason::Balance => Some(-2052),
        RefusalReason::Credentials => None,
    }
}

async fn send_rcs(vendor: &VendorSimulator, call: &ApiRequest, kind: &str) -> Result<ServiceResult, Refusal> {
    let body = parse_json(call)?;
    let (kind, max_chars) = match kind {
        "sms" => ("RCS_SMS", 100),
        "lms" => ("RCS_LMS", 1300),
        "mms" => ("RCS_MMS", 1300),
        "template" => ("RCS_TEMPLATE", 90),
        _ => return Err((-9998, "There is no such type.")),
    };
    if text_field(&body, "brandId") != Some(BRAND_ID) {
        return Err((-4000, "There is no such brand."));
    }
    let chatbot = text_field(&body, "chatbotId").unwrap_or_default();
    // A mobile number cannot send RCS.
    if !is_sender(chatbot) || chatbot.starts_with("010") || !vendor.is_registered(chatbot) {
        return Err((-4010, "There is no such chatbot."));
    }
    let message_text = text_field(&body, "body").ok_or((4, "The body is required."))?;
    if message_text.chars().count() > max_chars
        || text_field(&body, "title").is_some_and(|title| title.chars().count() > 30)
    {
        return Err((-3010, "The title or the body is too long."));
    }
    let to = text_field(&body, "recipientNumber").unwrap_or_default();
    let to = to.strip_prefix("+82").map_or_else(|| to.to_owned(), |national| format!("0{national}"));
    if !is_recipient(&to) {
        return Err((-5000, "The recipient number cannot be sent to."));
    }
    let draft = Draft { to, text: message_text.to_owned(), reference: None, refusal: None };
    let options = json!({ "brandId": BRAND_ID, "messagebaseId": body.get("messagebaseId") });
    let group = Group { kind, from: Some(chatbot), subject: text_field(&body, "title"), options };
    let accept = || {
        let (request, verdicts) = accept_valid(vendor, std::slice::from_ref(&draft), &group, alimtalk_refusal);
        match verdicts.first().and_then(|verdict| verdict["resultCode"].as_i64()) {
            Some(0) | None => successful(json!({ "messageId": request })),
            Some(code) => refused(code, "FAILURE"),
        }
    };
    Ok(vendor.answer_with(&recipients_and_texts(std::slice::from_ref(&draft)), accept).await)
}

fn kst(at: DateTime<Utc>) -> NaiveDateTime {
    KST.map_or_else(|| at.naive_utc(), |kst| at.with_timezone(&kst).naive_local())
}

/// Formats a time as `2018-08-10 10:06:30.0`.
fn time(at: DateTime<Utc>) -> String {
    kst(at).format("%Y-%m-%d %H:%M:%S.0").to_string()
}

fn zoned(at: DateTime<Utc>) -> String {
    kst(at).format("%Y-%m-%dT%H:%M:%S%.3f+09:00").to_string()
}

/// A range of Korean times in a query, including the whole last second or minute.
struct DateRange {
    from: NaiveDateTime,
    until: NaiveDateTime,
}

impl DateRange {
    /// Reads a range of at most `days` days. `None` if the query has none.
    fn from_query(call: &ApiRequest, names: (&str, &str), days: i64) -> Result<Option<DateRange>, Refusal> {
        let (Some(from), Some(until)) = (call.query_value(names.0), call.query_value(names.1)) else { return Ok(None) };
        let read = |text: &str, last: bool| {
            let seconds = NaiveDateTime::parse_from_str(text, SECONDS).map(|at| (at, TimeDelta::seconds(1)));
            let read =
                seconds.or_else(|_| NaiveDateTime::parse_from_str(text, MINUTES).map(|at| (at, TimeDelta::minutes(1))));
            read.map(|(at, unit)| if last { at + unit } else { at }).map_err(|_| (-2000, "The date cannot be read."))
        };
        let span = DateRange { from: read(&from, false)?, until: read(&until, true)? };
        if span.until - span.from > TimeDelta::days(days) + TimeDelta::minutes(1) || span.until < span.from {
            return Err((4, "The range of dates is too long, or ends before it begins."));
        }
        Ok(Some(span))
    }

    fn contains(&self, at: DateTime<Utc>) -> bool {
        (self.from..self.until).contains(&kst(at))
    }
}

struct Page {
    number: usize,
    size: usize,
    total: usize,
    rows: Vec<MessageState>,
}

fn page_of(call: &ApiRequest, found: Vec<MessageState>) -> Page {
    let (number, size) =
        (call.query_number("pageNum", 1).max(1), call.query_number("pageSize", DEFAULT_PAGE).clamp(1, MAX_PAGE));
    let total = found.len();
    Page { number, size, total, rows: found.into_iter().skip((number - 1) * size).take(size).collect() }
}

/// Returns a page of a product's messages whose final result changed in the range of the query, in that order.
fn find_results(vendor: &VendorSimulator, call: &ApiRequest, wanted: &str, days: i64) -> Result<Page, Refusal> {
    let span = DateRange::from_query(call, ("startUpdateDate", "endUpdateDate"), days)?;
    let span = span.ok_or((4, "startUpdateDate and endUpdateDate are required."))?;
    let mut messages = vendor.find(|state| {
        product(&state.message.kind) == Some(wanted)
            && state.result != MessageResult::Pending
            && span.contains(state.changed_at)
    });
    messages.sort_by_key(|state| state.changed_at);
    Ok(page_of(call, messages))
}

/// Returns a page of the messages that match a search: by request, or by time range, and by recipient.
fn find_sent(
    vendor: &VendorSimulator,
    call: &ApiRequest,
    wanted: impl Fn(&AcceptedMessage) -> bool,
) -> Result<Page, Refusal> {
    let requested = DateRange::from_query(call, ("startRequestDate", "endRequestDate"), 31)?;
    let span = requested.or(DateRange::from_query(call, ("startCreateDate", "endCreateDate"), 31)?);
    let request = call.query_value("requestId");
    if span.is_none() && request.is_none() {
        return Err((4, "requestId, or a range of dates, is required."));
    }
    let (to, key) = (call.query_value("recipientNo"), call.query_value("recipientGroupingKey"));
    let messages = vendor.find(|MessageState { message, .. }| {
        wanted(message)
            && request.as_ref().is_none_or(|id| *id == message.request)
            && span.as_ref().is_none_or(|span| span.contains(message.at))
            && to.as_ref().is_none_or(|to| *to == message.to)
            && key.as_ref().is_none_or(|key| message.reference.as_ref() == Some(key))
    });
    Ok(page_of(call, messages))
}

/// Returns the result code, and the vendor's text for it.
fn text_result(end: MessageResult) -> Option<(&'static str, &'static str)> {
    Some(match end {
        MessageResult::Pending => return None,
        MessageResult::Delivered | MessageResult::NotAUser => ("1000", "성공"),
        MessageResult::Failed => ("2003", "전원꺼짐"),
        MessageResult::Expired => ("2000", "전송시간 초과"),
    })
}

fn alimtalk_result(end: MessageResult) -> Option<(&'static str, &'static str)> {
    Some(match end {
        MessageResult::Pending => return None,
        MessageResult::Delivered => ("1000", "성공"),
        MessageResult::Failed => ("3018", "메시지를 전송할 수 없음"),
        MessageResult::Expired => ("4143", "만료됨"),
        MessageResult::NotAUser => ("3019", "카카오톡 유저가 아님"),
    })
}

/// Makes the JSON of a text, for lists and single look-ups.
fn text_json(state: &MessageState) -> Value {
    let (message, result) = (&state.message, text_result(state.result));
    let (status, name) = match state.result {
        MessageResult::Pending => ("2", "processing"),
        MessageResult::Delivered | MessageResult::NotAUser => ("3", "successful"),
        MessageResult::Failed | MessageResult::Expired => ("0", "failed"),
    };
    json!({
        "requestId": message.request, "requestDate": time(message.at),
        "resultDate": result.map(|_| time(state.changed_at)),
        "templateId": null, "templateName": null, "categoryId": null, "categoryName": null, "title": message.subject,
        "body": message.text, "sendNo": message.from, "countryCode": "82", "recipientNo": message.to,
        "msgStatus": status, "msgStatusName": name,
        "resultCode": result.map(|r| r.0), "resultCodeName": result.map(|r| r.1),
        "telecomCode": result.map(|_| 10001), "telecomCodeName": result.map(|_| "SKT"), "recipientSeq": message.place,
        "sendType": if message.kind == "SMS" { "0" } else { "1" }, "messageType": message.kind, "messageCount": 1,
        "userId": null, "adYn": "N", "resultMessage": "", "senderGroupingKey": message.options["senderGroupingKey"],
        "recipientGroupingKey": message.reference,
    })
}

fn list_texts(vendor: &VendorSimulator, call: &ApiRequest, kind: &str) -> GetResult {
    let long = kind == "mms";
    let page = find_sent(vendor, call, |message| match message.kind.as_str() {
        "LMS" | "MMS" => long,
        "SMS" | "AUTH" => !long,
        _ => false,
    })?;
    let rows: Vec<Value> = page.rows.iter().map(text_json).collect();
    let body = json!({ "pageNum": page.number, "pageSize": page.size, "totalCount": page.total, "data": rows });
    Ok(successful(json!({ "body": body })))
}

fn get_text(vendor: &VendorSimulator, call: &ApiRequest, request: &str) -> GetResult {
    let position = call.query_number("recipientSeq", 0);
    let found = vendor.find(|s| s.message.request == request && s.message.place == position);
    let state = found.first().ok_or(NO_MESSAGE)?;
    Ok(successful(json!({ "body": { "data": text_json(state) } })))
}

fn list_text_results(vendor: &VendorSimulator, call: &ApiRequest) -> GetResult {
    let page = find_results(vendor, call, "sms", 1)?;
    let row = |state: &MessageState| {
        let text = text_json(state);
        let mut row = Map::new();
        for name in [
            "messageType",
            "requestId",
            "recipientSeq",
            "resultCode",
            "resultCodeName",
            "requestDate",
            "resultDate",
            "telecomCodeName",
            "senderGroupingKey",
            "recipientGroupingKey",
        ] {
            row.insert(name.to_owned(), text[name].clone());
        }
        row.insert("updateDate".to_owned(), json!(time(state.changed_at)));
        row.insert("telecomCode".to_owned(), json!("10001"));
        Value::Object(row)
    };
    let rows: Vec<Value> = page.rows.iter().map(row).collect();
    let body = json!({ "pageNum": page.number, "pageSize": page.size, "totalCount": page.total, "data": rows });
    Ok(successful(json!({ "body": body })))
}

fn alimtalk_json(state: &MessageState) -> Value {
    let (message, result) = (&state.message, alimtalk_result(state.result));
    let status = match state.result {
        MessageResult::Pending => "READY",
        MessageResult::Delivered => "COMPLETED",
        _ => "FAILED",
    };
    json!({
        "requestId": message.request, "recipientSeq": message.place, "plusFriendId": "@simulator",
        "senderKey": message.options["senderKey"], "templateCode": message.options["templateCode"],
        "recipientNo": message.to, "content": message.text,
        "requestDate": time(message.at), "createDate": time(message.at),
        "receiveDate": result.map(|_| time(state.changed_at)), "resendStatus": "RSC01", "resendStatusName": "대체 발송 미대상",
        "resendResultCode": null, "resendRequestId": null, "messageStatus": status, "resultCode": result.map(|r| r.0),
        "resultCodeName": result.map(|r| r.1), "createUser": null,
        "senderGroupingKey": message.options["senderGroupingKey"], "recipientGroupingKey": message.reference,
    })
}

fn list_alimtalk(vendor: &VendorSimulator, call: &ApiRequest) -> GetResult {
    let page = find_sent(vendor, call, |taken| taken.kind == "ALIMTALK")?;
    let rows: Vec<Value> = page.rows.iter().map(alimtalk_json).collect();
    Ok(successful(json!({ "messageSearchResultResponse": { "messages": rows, "totalCount": page.total } })))
}

fn get_alimtalk(vendor: &VendorSimulator, request: &str, position: &str) -> GetResult {
    let found = vendor.find(|s| s.message.request == request && s.message.place.to_string() == position);
    let state = found.first().ok_or(NO_MESSAGE)?;
    Ok(successful(json!({ "message": alimtalk_json(state) })))
}

/// As the vendor documents, rows of this list have no `recipientGroupingKey`; those of a search have it.
fn list_alimtalk_results(vendor: &VendorSimulator, call: &ApiRequest) -> GetResult {
    let page = find_results(vendor, call, "alimtalk", 31)?;
    let row = |state: &MessageState| {
        let message = alimtalk_json(state);
        let names = [
            "requestId",
            "recipientSeq",
            "requestDate",
            "createDate",
            "receiveDate",
            "resendStatus",
            "resendStatusName",
            "resendResultCode",
            "resendRequestId",
            "messageStatus",
            "resultCode",
            "resultCodeName",
        ];
        names.into_iter().map(|name| (name.to_owned(), message[name].clone())).collect::<Map<_, _>>()
    };
    let rows: Vec<Map<String, Value>> = page.rows.iter().map(row).collect();
    Ok(successful(json!({ "messages": rows, "totalCount": page.total })))
}

fn rcs_json(state: &MessageState) -> Value {
    let message = &state.message;
    let (status, code) = match state.result {
        MessageResult::Pending => ("IN_PROGRESS", None),
        MessageResult::Delivered => ("DELIVERED", Some(2000)),
        MessageResult::Failed => ("FAILED", Some(56007)),
        MessageResult::Expired => ("FAILED", Some(52016)),
        MessageResult::NotAUser => ("FAILED", Some(54002)),
    };
    json!({
        "messageId": message.request, "recipientSequence": 0, "messageType": message.kind.trim_start_matches("RCS_"),
        "brandId": message.options["brandId"], "chatbotId": message.from, "recipientNumber": message.to,
        "messagebaseId": message.options["messagebaseId"], "title": message.subject.as_deref().unwrap_or_default(),
        "body": message.text, "messageStatus": status, "resultCode": code, "telecom": code.map(|_| "kt"),
        "sendDateTime": zoned(message.at), "receiveDateTime": code.map(|_| zoned(state.changed_at)),
        "resultDateTime": code.map(|_| zoned(state.changed_at)), "isAd": false, "isFallback": false,
        "fallbackStatus": "NONE", "fallbackRequestId": "", "fallbackResultCode": "", "fallbackDateTime": "",
    })
}

fn rcs_kind(kind: &str) -> String {
    format!("RCS_{}", kind.to_uppercase())
}

fn list_rcs(vendor: &VendorSimulator, call: &ApiRequest, kind: &str) -> GetResult {
    let sent_range = DateRange::from_query(call, ("startSendDateTime", "endSendDateTime"), 31)?;
    let received_range = DateRange::from_query(call, ("startReceiveDateTime", "endReceiveDateTime"), 31)?;
    let id = call.query_value("messageId");
    if id.is_none() && sent_range.is_some() == received_range.is_some() {
        return Err((4, "messageId, or one range of dates, is required."));
    }
    let messages = vendor.find(|state| {
        state.message.kind == rcs_kind(kind)
            && id.as_ref().is_none_or(|id| *id == state.message.request)
            && sent_range.as_ref().is_none_or(|span| span.contains(state.message.at))
            && received_range
                .as_ref()
                .is_none_or(|span| state.result != MessageResult::Pending && span.contains(state.changed_at))
    });
    let (limit, offset) = (call.query_number("limit", DEFAULT_PAGE).clamp(1, MAX_PAGE), call.query_number("offset", 0));
    let total = messages.len();
    let rows = messages.iter().skip(offset).take(limit).map(|state| {
        let mut row = rcs_json(state);
        // Only the look-up of one message has the code.
        if let Some(row) = row.as_object_mut() {
            row.remove("resultCode");
            row.remove("telecom");
        }
        row
    });
    let rows: Vec<Value> = rows.collect();
    Ok(successful(json!({ "data": rows, "pagination": { "offset": offset, "limit": limit, "total": total } })))
}

fn get_rcs(vendor: &VendorSimulator, kind: &str, id: &str) -> GetResult {
    let found = vendor.find(|s| s.message.request == id && s.message.kind == rcs_kind(kind));
    let state = found.first().ok_or(NO_MESSAGE)?;
    Ok(successful(json!({ "messageRecipient": rcs_json(state) })))
}

fn build_callback(events: &[ReceiptEvent], _tries: u32, now: DateTime<Utc>) -> CallbackRequest {
    let is_alimtalk = events.first().is_some_and(|events| events.state.message.kind == "ALIMTALK");
    let mut seen = HashSet::new();
    let hooks: Vec<Value> = events.iter().filter(|events| seen.insert(&events.event_id)).map(webhook_event).collect();
    let body = json!({
        "hooksId": format!("{}hooks", kst(now).format("%Y%m%d%H%M%S")), "webhookConfigId": "simulator",
        "productName": if is_alimtalk { "KakaoTalk Bizmessage" } else { "SMS" }, "appKey": APP_KEY,
        "event": "MESSAGE_RESULT_UPDATE", "hooks": hooks,
    });
    CallbackRequest { body, headers: vec![("x-toast-webhook-signature", SIGNATURE.to_owned())] }
}

fn webhook_event(event: &ReceiptEvent) -> Value {
    let (message, result) = (&event.state.message, event.state.result);
    let zoneless = |at| kst(at).format("%Y-%m-%dT%H:%M:%S").to_string();
    let (requested, received) = (zoneless(message.at), zoneless(event.state.changed_at));
    let grouping = &message.options["senderGroupingKey"];
    if message.kind == "ALIMTALK" {
        // 4161: in progress.
        let code = alimtalk_result(result).map_or("4161", |result| result.0);
        return json!({
            "hookId": event.event_id, "kakaoMessageType": "ALIMTALK_NORMAL", "requestId": message.request,
            "recipientSeq": message.place, "requestDate": requested, "createDate": requested, "receiveDate": received,
            "recipientNo": message.to, "resultCode": code, "senderGroupingKey": grouping,
            "recipientGroupingKey": message.reference, "_links": { "self": { "href": "" } },
        });
    }
    let (status, code) = match text_result(result) {
        Some((code, _)) => (if code == "1000" { "COMPLETED" } else { "FAILED" }, Some(code)),
        None => ("PROCESSING", None),
    };
    // As in the vendor's example: recipientGroupingKey is misspelt, and `_link` has one letter less.
    json!({
        "hookId": event.event_id, "senderType": format!("NORMAL_{}", message.kind), "requestId": message.request,
        "recipientSeq": message.place, "requestDate": requested, "receiveDate": received, "sendNo": message.from,
        "recipientNo": message.to, "messageStatus": status, "recipientGropuingKey": message.reference,
        "senderGroupingKey": grouping, "resultCode": code, "messageCount": 1, "_link": { "self": { "href": "" } },
    })
}

#[cfg(test)]
mod tests {
    use super::super::vendor::UNREGISTERED_SENDER;
    use super::super::vendor::testing::Caller;
    use super::*;

    const SMS: &str = "/sms/v3.0/appKeys/simulator0appkey/sender/sms";
    const TALK: &str = "/alimtalk/v2.3/appkeys/simulator0appkey/raw-messages";
    const RCS: &str = "/rcs/v1.0/messages/sms";
    const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");
    const KEYS: [(&str, &str); 3] = [JSON, ("x-secret-key", SECRET_KEY), ("x-tc-app-key", APP_KEY)];

    async fn caller() -> Caller {
        Caller::at(|setup, shutdown| async move { start(setup, &shutdown).await }).await
    }

    async fn post(caller: &Caller, path: &str, body: &Value) -> Value {
        let (status, answer) = caller.ask(Method::POST, path, &KEYS, &body.to_string()).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn get(caller: &Caller, path: &str) -> Value {
        caller.ask(Method::GET, path, &KEYS, "").await.unwrap().1
    }

    fn sms(to: &[&str], said: &str) -> Value {
        let to: Vec<Value> =
            to.iter().map(|to| json!({ "recipientNo": to, "recipientGroupingKey": format!("nh-{to}") })).collect();
        json!({ "body": said, "sendNo": "0212345678", "recipientList": to })
    }

    fn codes(answer: &Value, list: &str) -> Vec<i64> {
        answer
            .pointer(list)
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["resultCode"].as_i64().unwrap())
            .collect()
    }

    /// An HTTP 200 is not acceptance: the header may refuse, and each recipient has its own result.
    #[tokio::test]
    async fn status_200_may_refuse() {
        let caller = caller().await;
        let header = |answer: &Value| answer["header"]["resultCode"].as_i64().unwrap();
        let good = sms(&["01012345678"], "x");
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        for (body, code) in [
            (with("sendNo", json!(UNREGISTERED_SENDER)), -2312),
            (with("sendNo", json!("119")), -2312),
            (with("recipientList", json!([])), -2018),
            (with("recipientList", json!(vec![json!({ "recipientNo": "01012345678" }); 1001])), -2016),
            (with("body", json!("")), 4),
            (with("body", json!("x".repeat(256))), -2015),
            (with("body", json!("🎉")), -2023),
        ] {
            assert_eq!(header(&post(&caller, SMS, &body).await), code, "{body}");
        }
        let ask = async |path: &str, headers: &[(&str, &str)], body: &str| {
            header(&caller.ask(Method::POST, path, headers, body).await.unwrap().1)
        };
        let text = good.to_string();
        assert_eq!(ask(SMS, &[JSON, ("x-secret-key", "other")], &text).await, -1001);
        assert_eq!(ask(&SMS.replace("simulator0", "other0"), &KEYS, &text).await, -1000);
        assert_eq!(ask(SMS, &[("x-secret-key", SECRET_KEY)], &text).await, -9996);
        assert_eq!(ask(SMS, &KEYS, "{").await, -9997);
        assert_eq!(caller.vendor.accepted_count(), 0);

        let several = sms(&["01012345678", "0212345678", "01000000002", "01000000010", "01000000001"], "x");
        let answer = post(&caller, SMS, &several).await;
        assert_eq!(header(&answer), 0);
        assert_eq!(codes(&answer, "/body/data/sendResultList"), [0, -2019, -2021, -6001, -2019]);
        assert_eq!(caller.vendor.accepted_count(), 1);
    }

    /// A text that is too long is cut silently, and characters outside CP949 become question marks.
    #[tokio::test]
    async fn texts_are_stored_as_the_vendor_stores_them() {
        let caller = caller().await;
        post(&caller, SMS, &sms(&["01012345678"], &format!("—{}", "가".repeat(60)))).await;
        assert_eq!(caller.vendor.records()[0].text, format!("?{}", "가".repeat(44)));
    }

    /// Webhooks have misspelt fields and times without a zone; lists have right ones.
    #[tokio::test]
    async fn text_results_are_sent_and_listed() {
        let caller = caller().await;
        let answer = post(&caller, SMS, &sms(&["01012345678", "01000000008", "01000000018"], "x")).await;
        let request = answer["body"]["data"]["requestId"].as_str().unwrap().to_owned();
        let found = get(&caller, &format!("{SMS}?requestId={request}&recipientGroupingKey=nh-01000000008")).await;
        assert_eq!((&found["body"]["totalCount"], &found["body"]["data"][0]["msgStatus"]), (&json!(1), &json!("2")));
        caller.vendor.send_all_receipts().await;
        let heard = caller.hub.take_received();
        let [(to, headers, body)] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!(
            (to.as_str(), headers["x-toast-webhook-signature"].to_str().unwrap()),
            ("/receipts?key=k", SIGNATURE)
        );
        let hooks = body["hooks"].as_array().unwrap();
        assert_eq!(hooks.len(), 2, "one is lost");
        assert_eq!(hooks[1]["recipientGropuingKey"], "nh-01000000008");
        assert_eq!((&hooks[1]["messageStatus"], &hooks[1]["resultCode"]), (&json!("FAILED"), &json!("2003")));
        assert_eq!(hooks[0]["receiveDate"].as_str().unwrap().len(), "2024-04-29T20:58:04".len());

        let now = kst(caller.vendor.now());
        let at = |hours: i64| (now + TimeDelta::hours(hours)).format("%Y-%m-%d%%20%H:%M:%S").to_string();
        let results = SMS.replace("sender/sms", "message-results");
        let window = |from, until| format!("{results}?startUpdateDate={}&endUpdateDate={}", at(from), at(until));
        let listed = get(&caller, &format!("{}&pageSize=2&pageNum=2", window(-1, 1))).await;
        assert_eq!((&listed["body"]["totalCount"], listed["body"]["data"].as_array().unwrap().len()), (&json!(3), 1));
        assert_eq!(
            listed["body"]["data"][0]["recipientGroupingKey"], "nh-01000000018",
            "what is lost can be asked for"
        );
        assert_eq!(get(&caller, &window(1, 2)).await["body"]["totalCount"], 0);
        assert_eq!(get(&caller, &window(-24, 1)).await["header"]["resultCode"], 4, "more than a day");
        let one = get(&caller, &format!("{SMS}/{request}?recipientSeq=2")).await;
        assert_eq!(one["body"]["data"]["resultCode"], "2003");
    }

    /// A reused idempotency key is refused; that a recipient does not use KakaoTalk is reported later.
    #[tokio::test]
    async fn reused_idempotency_key_is_refused() {
        let caller = caller().await;
        let to = [json!({ "recipientNo": "01000000009", "content": "x", "recipientGroupingKey": "nh" })];
        let body = json!({ "senderKey": SENDER_KEY, "templateCode": "T", "recipientList": to });
        let headers = [&KEYS[..], &[("x-nc-api-idempotency-key", "a")]].concat();
        let ask = async || caller.ask(Method::POST, TALK, &headers, &body.to_string()).await.unwrap().1;
        assert_eq!(codes(&ask().await, "/message/sendResults"), [0]);
        assert_eq!(ask().await["header"]["resultCode"], -1005);
        assert_eq!(caller.vendor.accepted_count(), 1);
        let mut nobody = body.clone();
        nobody["senderKey"] = json!("x");
        assert_eq!(post(&caller, TALK, &nobody).await["header"]["resultCode"], -1006);
        caller.vendor.send_all_receipts().await;
        let (_, _, told) = caller.hub.take_received().remove(0);
        assert_eq!(
            (&told["hooks"][0]["resultCode"], &told["hooks"][0]["recipientGroupingKey"]),
            (&json!("3019"), &json!("nh"))
        );
        let day = kst(caller.vendor.now()).format("%Y-%m-%d");
        let listed = |path: &str| TALK.replace("raw-messages", path);
        let results = listed(&format!("message-results?startUpdateDate={day}%2000:00&endUpdateDate={day}%2023:59"));
        let row = &get(&caller, &results).await["messages"][0];
        assert_eq!((&row["messageStatus"], row.get("recipientGroupingKey")), (&json!("FAILED"), None));
        let found =
            get(&caller, &listed(&format!("messages?startRequestDate={day}%2000:00&endRequestDate={day}%2023:59")))
                .await;
        assert_eq!(found["messageSearchResultResponse"]["messages"][0]["recipientGroupingKey"], "nh");
    }

    /// RCS takes one recipient in each request, refuses mobile numbers as sender, and is only listed.
    #[tokio::test]
    async fn rcs_results_are_only_listed() {
        let caller = caller().await;
        let to = "+821000000009";
        let body = |from: &str| json!({ "brandId": BRAND_ID, "chatbotId": from, "recipientNumber": to, "body": "x" });
        assert_eq!(post(&caller, RCS, &body("01012345678")).await["header"]["resultCode"], -4010);
        let id = post(&caller, RCS, &body("0212345678")).await["messageId"].as_str().unwrap().to_owned();
        caller.vendor.send_all_receipts().await;
        assert_eq!(caller.hub.take_received().len(), 0);
        let one = get(&caller, &format!("{RCS}/{id}")).await;
        let one = &one["messageRecipient"];
        assert_eq!((&one["messageStatus"], &one["resultCode"]), (&json!("FAILED"), &json!(54002)));
        let listed = get(&caller, &format!("{RCS}?messageId={id}")).await;
        assert_eq!((&listed["pagination"]["total"], listed["data"][0].get("resultCode")), (&json!(1), None));
    }
}
