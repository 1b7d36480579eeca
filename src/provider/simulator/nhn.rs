//! NHN Cloud: SMS v3.0, KakaoTalk's AlimTalk v2.3 and RCS v1.0 behind one address. Nearly every answer is an HTTP 200 whose
//! header says whether it is a yes, and then each recipient has its own code.
//!
//! Results are told for SMS (`sms`) and AlimTalk (`alimtalk`), with a header that is the same each time, fields that are
//! misspelt as the vendor's own example has them, and Korean times without a zone; and they are listed, by when they
//! changed. RCS is only listed.

use std::collections::HashSet;

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeDelta, Utc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response};
use serde_json::{Map, Value, json};

use super::Answered;
use super::magic::Why;
use super::vendor::{
    Call, End, MessageState, News, No, Receipts, Setup, Sheet, Taken, Trade, Vendor, is_recipient, is_sender,
    json as answer, text,
};
use crate::error::Result;
use crate::model::cp949;
use crate::shutdown::Shutdown;

pub const APP_KEY: &str = "simulator0appkey";
pub const SECRET_KEY: &str = "simulator0secretkey";
/// What its webhooks show.
pub const SIGNATURE: &str = "simulator-webhook-signature";
/// As the vendor's: 40 characters. Another is nobody's.
pub const SENDER_KEY: &str = "0123456789abcdef0123456789abcdef01234567";
pub const BRAND_ID: &str = "sampleBrandId";

const RECIPIENTS: usize = 1000;
const KEY_CHARS: usize = 100;
const PAGE: usize = 15;
const LONGEST_PAGE: usize = 1000;
const IDEMPOTENT: TimeDelta = TimeDelta::minutes(10);
const SECONDS: &str = "%Y-%m-%d %H:%M:%S";
const MINUTES: &str = "%Y-%m-%d %H:%M";
const KST: Option<FixedOffset> = FixedOffset::east_opt(9 * 3600);

const TRADE: Trade = Trade {
    name: "nhn",
    refusal: (500, "-9999"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: |no| match no {
        No::Credentials => refused(-1000, "Invalid appKey."),
        No::Limited => answer(429, &header(-50201, "Too many requests.")),
        No::Scripted(status, code) => answer(status, &header(code.parse().unwrap_or(-9999), "simulated")),
    },
    by_users: |kind| !matches!(kind, "SMS" | "LMS" | "MMS" | "AUTH"),
    receipts: Some(Receipts { product, envelope, at_once: 100, again: &[10.0, 60.0, 300.0] }),
};

pub async fn start(setup: Setup, shutdown: &Shutdown) -> Result<Vendor> {
    Vendor::start(&TRADE, setup, shutdown).await
}

/// Of `ALIMTALK`, `RCS_SMS` and its like, or a text's kind.
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
    answer(200, &header(code, message))
}

fn successful(mut body: Value) -> Response<Full<Bytes>> {
    body["header"] = header(0, "SUCCESS")["header"].clone();
    answer(200, &body)
}

type Refusal = (i64, &'static str);
type Listed = Result<Response<Full<Bytes>>, Refusal>;
const NO_MESSAGE: Refusal = (-2017, "There is no such message.");

async fn respond(vendor: Vendor, call: Call) -> Answered {
    let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
    let (keys, rest) = match parts.as_slice() {
        ["sms", "v3.0", "appKeys", app, rest @ ..] => ((Some(*app), call.header("x-secret-key")), ("sms", rest)),
        ["alimtalk", "v2.3", "appkeys", app, rest @ ..] => ((Some(*app), call.header("x-secret-key")), ("talk", rest)),
        ["rcs", "v1.0", rest @ ..] => ((call.header("x-tc-app-key"), call.header("x-secret-key")), ("rcs", rest)),
        _ => return Ok(answer(404, &header(-9998, "Not found."))),
    };
    if keys.0 != Some(APP_KEY) {
        return Ok(refused(-1000, "Invalid appKey."));
    }
    if keys.1 != Some(SECRET_KEY) {
        return Ok(refused(-1001, "Invalid secretKey."));
    }
    let done = match (&call.method, rest) {
        (&Method::POST, ("sms", ["sender", kind @ ..])) => send_texts(&vendor, &call, kind).await,
        (&Method::POST, ("talk", ["raw-messages" | "messages"])) => send_talks(&vendor, &call).await,
        (&Method::POST, ("rcs", ["messages", kind])) => send_rcs(&vendor, &call, kind).await,
        (&Method::GET, rest) => listed(&vendor, &call, rest).map(Ok),
        _ => Err(NOWHERE),
    };
    done.unwrap_or_else(|(code, message)| Ok(refused(code, message)))
}

const NOWHERE: Refusal = (-9998, "Not found.");

fn listed(vendor: &Vendor, call: &Call, rest: (&str, &[&str])) -> Listed {
    match rest {
        ("sms", ["message-results"]) => text_results(vendor, call),
        ("sms", ["sender", kind]) => texts(vendor, call, kind),
        ("sms", ["sender", _, request]) => one_text(vendor, call, request),
        ("talk", ["message-results"]) => talk_results(vendor, call),
        ("talk", ["messages"]) => talks(vendor, call),
        ("talk", ["messages", request, place]) => one_talk(vendor, request, place),
        ("rcs", ["messages", kind]) => list_rcs(vendor, call, kind),
        ("rcs", ["messages", kind, id]) => one_rcs(vendor, kind, id),
        _ => Err(NOWHERE),
    }
}

/// A request's JSON.
fn body(call: &Call) -> Result<Value, Refusal> {
    if !call.is_json() {
        return Err((-9996, "Content-Type is not application/json."));
    }
    serde_json::from_slice(&call.body).map_err(|_| (-9997, "The JSON cannot be read."))
}

fn recipients(body: &Value) -> Result<&Vec<Value>, Refusal> {
    match body["recipientList"].as_array() {
        Some(list) if list.len() > RECIPIENTS => Err((-2016, "Up to 1,000 recipients.")),
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err((-2018, "There is no recipient.")),
    }
}

/// One recipient of a request, and what it gets.
struct Draft {
    to: String,
    text: String,
    reference: Option<String>,
    refusal: Option<i64>,
}

fn draft(recipient: &Value, said: &str, invalid: i64) -> Draft {
    let international = text(recipient, "internationalRecipientNo").and_then(|no| no.strip_prefix("82"));
    let to = text(recipient, "recipientNo").map(|no| no.replace('-', "")).or(international.map(|no| format!("0{no}")));
    let to = to.unwrap_or_default();
    let reference = text(recipient, "recipientGroupingKey").filter(|key| key.len() <= KEY_CHARS).map(str::to_owned);
    let refusal = (!is_recipient(&to)).then_some(invalid);
    Draft { to, text: said.to_owned(), reference, refusal }
}

/// What the request as a whole says of the messages that are taken of it.
struct Group<'g> {
    kind: &'g str,
    from: Option<&'g str>,
    subject: Option<&'g str>,
    options: Value,
}

/// Takes what is not refused; the verdict on each, and the id of all.
fn take(vendor: &Vendor, drafts: &[Draft], group: &Group<'_>, code: fn(Why) -> Option<i64>) -> (String, Vec<Value>) {
    let now = vendor.now();
    let request = format!("{}nh{:08}", korean(now).format("%Y%m%d%H%M%S"), vendor.number());
    let mut verdicts = Vec::new();
    for (n, draft) in drafts.iter().enumerate() {
        let refusal = draft.refusal.or_else(|| vendor.refuses(&draft.to).and_then(code));
        let (result, message) = refusal.map_or((0, "SUCCESS"), |code| (code, "FAILURE"));
        verdicts.push(json!({
            "recipientNo": draft.to, "resultCode": result, "resultMessage": message, "recipientSeq": n + 1,
            "recipientGroupingKey": draft.reference,
        }));
        if refusal.is_some() {
            continue;
        }
        vendor.take(Taken {
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

fn pairs(drafts: &[Draft]) -> Vec<(&str, &str)> {
    drafts.iter().map(|draft| (draft.to.as_str(), draft.text.as_str())).collect()
}

async fn send_texts(vendor: &Vendor, call: &Call, path: &[&str]) -> Result<Answered, Refusal> {
    let body = body(call)?;
    let (kind, standard, most) = match path {
        ["sms"] => ("SMS", 90, 255),
        ["auth", "sms"] => ("AUTH", 90, 255),
        ["mms"] if body["attachFileIdList"].as_array().is_some_and(|list| !list.is_empty()) => ("MMS", 2000, 4000),
        ["mms"] => ("LMS", 2000, 4000),
        _ => return Err((-9998, "There is no such sender.")),
    };
    let said = text(&body, "body").ok_or((4, "The body is required."))?;
    let title = text(&body, "title");
    if matches!(kind, "LMS" | "MMS") && title.is_none() {
        return Err((4, "The title is required."));
    }
    if kind == "AUTH" && !["auth", "password", "verif", "인증", "비밀번호"].iter().any(|word| said.contains(word))
    {
        return Err((-8000, "There is no word of authentication in it."));
    }
    let said = cut(said, standard, most)?;
    let title = title.map(|title| cut(title, 40, 120)).transpose()?;
    let from = text(&body, "sendNo").unwrap_or_default().replace('-', "");
    if !is_sender(&from) || !vendor.is_registered(&from) {
        return Err((-2312, "The sender number is not registered."));
    }
    let drafts: Vec<Draft> = recipients(&body)?.iter().map(|recipient| draft(recipient, &said, -2019)).collect();
    let grouping = body["senderGroupingKey"].clone();
    let options = json!({ "senderGroupingKey": grouping });
    let group = Group { kind, from: Some(&from), subject: title.as_deref(), options };
    let answered = || {
        let (request, verdicts) = take(vendor, &drafts, &group, text_refusal);
        let data = json!({ "requestId": request, "statusCode": "2", "senderGroupingKey": grouping,
            "sendResultList": verdicts });
        successful(json!({ "body": { "data": data } }))
    };
    Ok(vendor.act(&pairs(&drafts), answered).await)
}

fn text_refusal(why: Why) -> Option<i64> {
    match why {
        Why::Address => Some(-2019),
        Why::Internal => Some(-2021),
        Why::OptedOut => Some(-6001),
        Why::Balance => Some(-2052),
        Why::Credentials => None,
    }
}

/// As the vendor keeps a text: emoji are refused, what else the code page lacks becomes a question mark, and what is longer
/// than the standard is cut, without a word.
fn cut(said: &str, standard_bytes: usize, most_chars: usize) -> Result<String, Refusal> {
    if said.chars().count() > most_chars {
        return Err((-2015, "The title or the body is too long."));
    }
    let is_emoji = |c: char| matches!(c, '\u{1f000}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{fe0f}' | '\u{200d}');
    let (mut kept, mut bytes) = (String::new(), 0);
    for c in said.chars() {
        let (c, width) = match cp949::length(c.encode_utf8(&mut [0; 4])) {
            Ok(width) => (c, width),
            Err(_) if is_emoji(c) => return Err((-2023, "There are characters that cannot be sent.")),
            Err(_) => ('?', 1),
        };
        bytes += width;
        if bytes > standard_bytes {
            break;
        }
        kept.push(c);
    }
    Ok(kept)
}

async fn send_talks(vendor: &Vendor, call: &Call) -> Result<Answered, Refusal> {
    let body = body(call)?;
    if text(&body, "senderKey") != Some(SENDER_KEY) {
        return Err((-1006, "Invalid senderKey."));
    }
    let template = text(&body, "templateCode").ok_or((-3003, "There is no such template."))?;
    let list = recipients(&body)?;
    let raw = call.path.ends_with("/raw-messages");
    let mut drafts = Vec::new();
    for recipient in list {
        let said = match (raw, text(recipient, "content")) {
            (true, None) => return Err((4, "The content is required.")),
            (true, Some(content)) => content.to_owned(),
            (false, _) => recipient["templateParameter"].to_string(),
        };
        let mut draft = draft(recipient, &said, -5000);
        if said.chars().count() > 1000 && draft.refusal.is_none() {
            draft.refusal = Some(-3010);
        }
        drafts.push(draft);
    }
    let key = call.header("x-nc-api-idempotency-key").map(|key| format!("idempotency {key}"));
    let grouping = body["senderGroupingKey"].clone();
    let options = json!({ "senderGroupingKey": grouping, "senderKey": SENDER_KEY, "templateCode": template });
    let group = Group { kind: "ALIMTALK", from: None, subject: None, options };
    let answered = || {
        if key.is_some_and(|key| !vendor.first_use(&key, IDEMPOTENT)) {
            return refused(-1005, "The idempotency key was used within the last 10 minutes.");
        }
        let (request, verdicts) = take(vendor, &drafts, &group, talk_refusal);
        let message = json!({ "requestId": request, "senderGroupingKey": grouping, "sendResults": verdicts });
        successful(json!({ "message": message }))
    };
    Ok(vendor.act(&pairs(&drafts), answered).await)
}

fn talk_refusal(why: Why) -> Option<i64> {
    match why {
        Why::Address => Some(-5000),
        Why::Internal => Some(-7000),
        // Who blocked AlimTalk is found out on the way (3020); who takes no texts is not asked here.
        Why::OptedOut => Some(-6001),
        Why::Balance => Some(-2052),
        Why::Credentials => None,
    }
}

async fn send_rcs(vendor: &Vendor, call: &Call, kind: &str) -> Result<Answered, Refusal> {
    let body = body(call)?;
    let (kind, most) = match kind {
        "sms" => ("RCS_SMS", 100),
        "lms" => ("RCS_LMS", 1300),
        "mms" => ("RCS_MMS", 1300),
        "template" => ("RCS_TEMPLATE", 90),
        _ => return Err((-9998, "There is no such type.")),
    };
    if text(&body, "brandId") != Some(BRAND_ID) {
        return Err((-4000, "There is no such brand."));
    }
    let chatbot = text(&body, "chatbotId").unwrap_or_default();
    // Mobile numbers send no RCS.
    if !is_sender(chatbot) || chatbot.starts_with("010") || !vendor.is_registered(chatbot) {
        return Err((-4010, "There is no such chatbot."));
    }
    let said = text(&body, "body").ok_or((4, "The body is required."))?;
    if said.chars().count() > most || text(&body, "title").is_some_and(|title| title.chars().count() > 30) {
        return Err((-3010, "The title or the body is too long."));
    }
    let to = text(&body, "recipientNumber").unwrap_or_default();
    let to = to.strip_prefix("+82").map_or_else(|| to.to_owned(), |national| format!("0{national}"));
    if !is_recipient(&to) {
        return Err((-5000, "The recipient number cannot be sent to."));
    }
    let draft = Draft { to, text: said.to_owned(), reference: None, refusal: None };
    let options = json!({ "brandId": BRAND_ID, "messagebaseId": body.get("messagebaseId") });
    let group = Group { kind, from: Some(chatbot), subject: text(&body, "title"), options };
    let answered = || {
        let (request, verdicts) = take(vendor, std::slice::from_ref(&draft), &group, talk_refusal);
        match verdicts.first().and_then(|verdict| verdict["resultCode"].as_i64()) {
            Some(0) | None => successful(json!({ "messageId": request })),
            Some(code) => refused(code, "FAILURE"),
        }
    };
    Ok(vendor.act(&pairs(std::slice::from_ref(&draft)), answered).await)
}

fn korean(at: DateTime<Utc>) -> NaiveDateTime {
    KST.map_or_else(|| at.naive_utc(), |kst| at.with_timezone(&kst).naive_local())
}

/// `2018-08-10 10:06:30.0`
fn time(at: DateTime<Utc>) -> String {
    korean(at).format("%Y-%m-%d %H:%M:%S.0").to_string()
}

fn zoned(at: DateTime<Utc>) -> String {
    korean(at).format("%Y-%m-%dT%H:%M:%S%.3f+09:00").to_string()
}

/// Between two Korean times of a query, the last second or minute with all that is in it.
struct Span {
    from: NaiveDateTime,
    until: NaiveDateTime,
}

impl Span {
    /// None where the query names none; at most so many days.
    fn asked(call: &Call, names: (&str, &str), days: i64) -> Result<Option<Span>, Refusal> {
        let (Some(from), Some(until)) = (call.asked(names.0), call.asked(names.1)) else { return Ok(None) };
        let read = |text: &str, last: bool| {
            let seconds = NaiveDateTime::parse_from_str(text, SECONDS).map(|at| (at, TimeDelta::seconds(1)));
            let read =
                seconds.or_else(|_| NaiveDateTime::parse_from_str(text, MINUTES).map(|at| (at, TimeDelta::minutes(1))));
            read.map(|(at, unit)| if last { at + unit } else { at }).map_err(|_| (-2000, "The date cannot be read."))
        };
        let span = Span { from: read(&from, false)?, until: read(&until, true)? };
        if span.until - span.from > TimeDelta::days(days) + TimeDelta::minutes(1) || span.until < span.from {
            return Err((4, "The range of dates is too long, or ends before it begins."));
        }
        Ok(Some(span))
    }

    fn has(&self, at: DateTime<Utc>) -> bool {
        (self.from..self.until).contains(&korean(at))
    }
}

struct Page {
    number: usize,
    size: usize,
    total: usize,
    rows: Vec<MessageState>,
}

fn page(call: &Call, found: Vec<MessageState>) -> Page {
    let (number, size) = (call.number("pageNum", 1).max(1), call.number("pageSize", PAGE).clamp(1, LONGEST_PAGE));
    let total = found.len();
    Page { number, size, total, rows: found.into_iter().skip((number - 1) * size).take(size).collect() }
}

/// Those of a product that are done and changed in the time that is asked for, by when they changed.
fn results(vendor: &Vendor, call: &Call, wanted: &str, days: i64) -> Result<Page, Refusal> {
    let span = Span::asked(call, ("startUpdateDate", "endUpdateDate"), days)?;
    let span = span.ok_or((4, "startUpdateDate and endUpdateDate are required."))?;
    let mut found = vendor.find(|standing| {
        product(&standing.taken.kind) == Some(wanted) && standing.end != End::Pending && span.has(standing.at)
    });
    found.sort_by_key(|standing| standing.at);
    Ok(page(call, found))
}

/// Those that a search names: of a request, or asked for in a time, and to whom.
fn search(vendor: &Vendor, call: &Call, wanted: impl Fn(&Taken) -> bool) -> Result<Page, Refusal> {
    let requested = Span::asked(call, ("startRequestDate", "endRequestDate"), 31)?;
    let span = requested.or(Span::asked(call, ("startCreateDate", "endCreateDate"), 31)?);
    let request = call.asked("requestId");
    if span.is_none() && request.is_none() {
        return Err((4, "requestId, or a range of dates, is required."));
    }
    let (to, key) = (call.asked("recipientNo"), call.asked("recipientGroupingKey"));
    let found = vendor.find(|MessageState { taken, .. }| {
        wanted(taken)
            && request.as_ref().is_none_or(|id| *id == taken.request)
            && span.as_ref().is_none_or(|span| span.has(taken.at))
            && to.as_ref().is_none_or(|to| *to == taken.to)
            && key.as_ref().is_none_or(|key| taken.reference.as_ref() == Some(key))
    });
    Ok(page(call, found))
}

/// The receive code, and the vendor's word for it.
fn text_result(end: End) -> Option<(&'static str, &'static str)> {
    Some(match end {
        End::Pending => return None,
        End::Delivered | End::NotAUser => ("1000", "성공"),
        End::Failed => ("2003", "전원꺼짐"),
        End::Expired => ("2000", "전송시간 초과"),
    })
}

fn talk_result(end: End) -> Option<(&'static str, &'static str)> {
    Some(match end {
        End::Pending => return None,
        End::Delivered => ("1000", "성공"),
        End::Failed => ("3018", "메시지를 전송할 수 없음"),
        End::Expired => ("4143", "만료됨"),
        End::NotAUser => ("3019", "카카오톡 유저가 아님"),
    })
}

/// A text as both lists and single look-ups have it.
fn listed_text(standing: &MessageState) -> Value {
    let (taken, result) = (&standing.taken, text_result(standing.end));
    let (status, name) = match standing.end {
        End::Pending => ("2", "processing"),
        End::Delivered | End::NotAUser => ("3", "successful"),
        End::Failed | End::Expired => ("0", "failed"),
    };
    json!({
        "requestId": taken.request, "requestDate": time(taken.at), "resultDate": result.map(|_| time(standing.at)),
        "templateId": null, "templateName": null, "categoryId": null, "categoryName": null, "title": taken.subject,
        "body": taken.text, "sendNo": taken.from, "countryCode": "82", "recipientNo": taken.to,
        "msgStatus": status, "msgStatusName": name, "resultCode": result.map(|r| r.0), "resultCodeName": result.map(|r| r.1),
        "telecomCode": result.map(|_| 10001), "telecomCodeName": result.map(|_| "SKT"), "recipientSeq": taken.place,
        "sendType": if taken.kind == "SMS" { "0" } else { "1" }, "messageType": taken.kind, "messageCount": 1,
        "userId": null, "adYn": "N", "resultMessage": "", "senderGroupingKey": taken.options["senderGroupingKey"],
        "recipientGroupingKey": taken.reference,
    })
}

fn texts(vendor: &Vendor, call: &Call, kind: &str) -> Listed {
    let long = kind == "mms";
    let page = search(vendor, call, |taken| match taken.kind.as_str() {
        "LMS" | "MMS" => long,
        "SMS" | "AUTH" => !long,
        _ => false,
    })?;
    let rows: Vec<Value> = page.rows.iter().map(listed_text).collect();
    let body = json!({ "pageNum": page.number, "pageSize": page.size, "totalCount": page.total, "data": rows });
    Ok(successful(json!({ "body": body })))
}

fn one_text(vendor: &Vendor, call: &Call, request: &str) -> Listed {
    let place = call.number("recipientSeq", 0);
    let found = vendor.find(|s| s.taken.request == request && s.taken.place == place);
    let standing = found.first().ok_or(NO_MESSAGE)?;
    Ok(successful(json!({ "body": { "data": listed_text(standing) } })))
}

fn text_results(vendor: &Vendor, call: &Call) -> Listed {
    let page = results(vendor, call, "sms", 1)?;
    let row = |standing: &MessageState| {
        let listed = listed_text(standing);
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
            row.insert(name.to_owned(), listed[name].clone());
        }
        row.insert("updateDate".to_owned(), json!(time(standing.at)));
        row.insert("telecomCode".to_owned(), json!("10001"));
        Value::Object(row)
    };
    let rows: Vec<Value> = page.rows.iter().map(row).collect();
    let body = json!({ "pageNum": page.number, "pageSize": page.size, "totalCount": page.total, "data": rows });
    Ok(successful(json!({ "body": body })))
}

fn listed_talk(standing: &MessageState) -> Value {
    let (taken, result) = (&standing.taken, talk_result(standing.end));
    let status = match standing.end {
        End::Pending => "READY",
        End::Delivered => "COMPLETED",
        _ => "FAILED",
    };
    json!({
        "requestId": taken.request, "recipientSeq": taken.place, "plusFriendId": "@simulator",
        "senderKey": taken.options["senderKey"], "templateCode": taken.options["templateCode"],
        "recipientNo": taken.to, "content": taken.text, "requestDate": time(taken.at), "createDate": time(taken.at),
        "receiveDate": result.map(|_| time(standing.at)), "resendStatus": "RSC01", "resendStatusName": "대체 발송 미대상",
        "resendResultCode": null, "resendRequestId": null, "messageStatus": status, "resultCode": result.map(|r| r.0),
        "resultCodeName": result.map(|r| r.1), "createUser": null,
        "senderGroupingKey": taken.options["senderGroupingKey"], "recipientGroupingKey": taken.reference,
    })
}

fn talks(vendor: &Vendor, call: &Call) -> Listed {
    let page = search(vendor, call, |taken| taken.kind == "ALIMTALK")?;
    let rows: Vec<Value> = page.rows.iter().map(listed_talk).collect();
    Ok(successful(json!({ "messageSearchResultResponse": { "messages": rows, "totalCount": page.total } })))
}

fn one_talk(vendor: &Vendor, request: &str, place: &str) -> Listed {
    let found = vendor.find(|s| s.taken.request == request && s.taken.place.to_string() == place);
    let standing = found.first().ok_or(NO_MESSAGE)?;
    Ok(successful(json!({ "message": listed_talk(standing) })))
}

/// Unlike a message that is searched for, one in this list has no key of its recipient's: so the vendor documents it.
fn talk_results(vendor: &Vendor, call: &Call) -> Listed {
    let page = results(vendor, call, "alimtalk", 31)?;
    let row = |standing: &MessageState| {
        let listed = listed_talk(standing);
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
        names.into_iter().map(|name| (name.to_owned(), listed[name].clone())).collect::<Map<_, _>>()
    };
    let rows: Vec<Map<String, Value>> = page.rows.iter().map(row).collect();
    Ok(successful(json!({ "messages": rows, "totalCount": page.total })))
}

fn listed_rcs(standing: &MessageState) -> Value {
    let taken = &standing.taken;
    let (status, code) = match standing.end {
        End::Pending => ("IN_PROGRESS", None),
        End::Delivered => ("DELIVERED", Some(2000)),
        End::Failed => ("FAILED", Some(56007)),
        End::Expired => ("FAILED", Some(52016)),
        End::NotAUser => ("FAILED", Some(54002)),
    };
    json!({
        "messageId": taken.request, "recipientSequence": 0, "messageType": taken.kind.trim_start_matches("RCS_"),
        "brandId": taken.options["brandId"], "chatbotId": taken.from, "recipientNumber": taken.to,
        "messagebaseId": taken.options["messagebaseId"], "title": taken.subject.as_deref().unwrap_or_default(),
        "body": taken.text, "messageStatus": status, "resultCode": code, "telecom": code.map(|_| "kt"),
        "sendDateTime": zoned(taken.at), "receiveDateTime": code.map(|_| zoned(standing.at)),
        "resultDateTime": code.map(|_| zoned(standing.at)), "isAd": false, "isFallback": false,
        "fallbackStatus": "NONE", "fallbackRequestId": "", "fallbackResultCode": "", "fallbackDateTime": "",
    })
}

fn rcs_kind(kind: &str) -> String {
    format!("RCS_{}", kind.to_uppercase())
}

fn list_rcs(vendor: &Vendor, call: &Call, kind: &str) -> Listed {
    let sent = Span::asked(call, ("startSendDateTime", "endSendDateTime"), 31)?;
    let received = Span::asked(call, ("startReceiveDateTime", "endReceiveDateTime"), 31)?;
    let id = call.asked("messageId");
    if id.is_none() && sent.is_some() == received.is_some() {
        return Err((4, "messageId, or one range of dates, is required."));
    }
    let found = vendor.find(|standing| {
        standing.taken.kind == rcs_kind(kind)
            && id.as_ref().is_none_or(|id| *id == standing.taken.request)
            && sent.as_ref().is_none_or(|span| span.has(standing.taken.at))
            && received.as_ref().is_none_or(|span| standing.end != End::Pending && span.has(standing.at))
    });
    let (limit, offset) = (call.number("limit", PAGE).clamp(1, LONGEST_PAGE), call.number("offset", 0));
    let total = found.len();
    let rows = found.iter().skip(offset).take(limit).map(|standing| {
        let mut row = listed_rcs(standing);
        // Only who asks for one message is told why.
        if let Some(row) = row.as_object_mut() {
            row.remove("resultCode");
            row.remove("telecom");
        }
        row
    });
    let rows: Vec<Value> = rows.collect();
    Ok(successful(json!({ "data": rows, "pagination": { "offset": offset, "limit": limit, "total": total } })))
}

fn one_rcs(vendor: &Vendor, kind: &str, id: &str) -> Listed {
    let found = vendor.find(|s| s.taken.request == id && s.taken.kind == rcs_kind(kind));
    let standing = found.first().ok_or(NO_MESSAGE)?;
    Ok(successful(json!({ "messageRecipient": listed_rcs(standing) })))
}

fn envelope(news: &[News], _tries: u32, now: DateTime<Utc>) -> Sheet {
    let talk = news.first().is_some_and(|news| news.standing.taken.kind == "ALIMTALK");
    let mut known = HashSet::new();
    let hooks: Vec<Value> = news.iter().filter(|news| known.insert(&news.event)).map(hook).collect();
    let body = json!({
        "hooksId": format!("{}hooks", korean(now).format("%Y%m%d%H%M%S")), "webhookConfigId": "simulator",
        "productName": if talk { "KakaoTalk Bizmessage" } else { "SMS" }, "appKey": APP_KEY,
        "event": "MESSAGE_RESULT_UPDATE", "hooks": hooks,
    });
    Sheet { body, headers: vec![("x-toast-webhook-signature", SIGNATURE.to_owned())] }
}

fn hook(news: &News) -> Value {
    let (taken, end) = (&news.standing.taken, news.standing.end);
    let zoneless = |at| korean(at).format("%Y-%m-%dT%H:%M:%S").to_string();
    let (requested, received) = (zoneless(taken.at), zoneless(news.standing.at));
    let grouping = &taken.options["senderGroupingKey"];
    if taken.kind == "ALIMTALK" {
        // 4161: on its way.
        let code = talk_result(end).map_or("4161", |result| result.0);
        return json!({
            "hookId": news.event, "kakaoMessageType": "ALIMTALK_NORMAL", "requestId": taken.request,
            "recipientSeq": taken.place, "requestDate": requested, "createDate": requested, "receiveDate": received,
            "recipientNo": taken.to, "resultCode": code, "senderGroupingKey": grouping,
            "recipientGroupingKey": taken.reference, "_links": { "self": { "href": "" } },
        });
    }
    let (status, code) = match text_result(end) {
        Some((code, _)) => (if code == "1000" { "COMPLETED" } else { "FAILED" }, Some(code)),
        None => ("PROCESSING", None),
    };
    // As its example has it: a group's key is misspelt, and the link has one letter less.
    json!({
        "hookId": news.event, "senderType": format!("NORMAL_{}", taken.kind), "requestId": taken.request,
        "recipientSeq": taken.place, "requestDate": requested, "receiveDate": received, "sendNo": taken.from,
        "recipientNo": taken.to, "messageStatus": status, "recipientGropuingKey": taken.reference,
        "senderGroupingKey": grouping, "resultCode": code, "messageCount": 1, "_link": { "self": { "href": "" } },
    })
}

#[cfg(test)]
mod tests {
    use super::super::vendor::STRANGER;
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

    /// An HTTP 200 is no acceptance: the header says no, or each recipient has its own verdict.
    #[tokio::test]
    async fn a_200_may_be_a_no() {
        let caller = caller().await;
        let header = |answer: &Value| answer["header"]["resultCode"].as_i64().unwrap();
        let good = sms(&["01012345678"], "x");
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        for (body, code) in [
            (with("sendNo", json!(STRANGER)), -2312),
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
        assert_eq!(caller.vendor.taken(), 0);

        let several = sms(&["01012345678", "0212345678", "01000000002", "01000000010", "01000000001"], "x");
        let answer = post(&caller, SMS, &several).await;
        assert_eq!(header(&answer), 0);
        assert_eq!(codes(&answer, "/body/data/sendResultList"), [0, -2019, -2021, -6001, -2019]);
        assert_eq!(caller.vendor.taken(), 1);
    }

    /// Too long a text is cut in silence, and what the carriers' code page lacks arrives as a question mark.
    #[tokio::test]
    async fn texts_are_kept_as_the_vendor_keeps_them() {
        let caller = caller().await;
        post(&caller, SMS, &sms(&["01012345678"], &format!("—{}", "가".repeat(60)))).await;
        assert_eq!(caller.vendor.records()[0].text, format!("?{}", "가".repeat(44)));
    }

    /// What became of texts is told with misspelt fields and times without a zone, and listed with right ones.
    #[tokio::test]
    async fn results_of_texts_are_told_and_listed() {
        let caller = caller().await;
        let answer = post(&caller, SMS, &sms(&["01012345678", "01000000008", "01000000018"], "x")).await;
        let request = answer["body"]["data"]["requestId"].as_str().unwrap().to_owned();
        let found = get(&caller, &format!("{SMS}?requestId={request}&recipientGroupingKey=nh-01000000008")).await;
        assert_eq!((&found["body"]["totalCount"], &found["body"]["data"][0]["msgStatus"]), (&json!(1), &json!("2")));
        caller.vendor.tell().await;
        let heard = caller.hub.heard();
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

        let now = korean(caller.vendor.now());
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

    /// A key that was used is refused, not answered as before; who has no KakaoTalk is found out later.
    #[tokio::test]
    async fn alimtalks_are_refused_the_second_time() {
        let caller = caller().await;
        let to = [json!({ "recipientNo": "01000000009", "content": "x", "recipientGroupingKey": "nh" })];
        let body = json!({ "senderKey": SENDER_KEY, "templateCode": "T", "recipientList": to });
        let headers = [&KEYS[..], &[("x-nc-api-idempotency-key", "a")]].concat();
        let ask = async || caller.ask(Method::POST, TALK, &headers, &body.to_string()).await.unwrap().1;
        assert_eq!(codes(&ask().await, "/message/sendResults"), [0]);
        assert_eq!(ask().await["header"]["resultCode"], -1005);
        assert_eq!(caller.vendor.taken(), 1);
        let mut nobody = body.clone();
        nobody["senderKey"] = json!("x");
        assert_eq!(post(&caller, TALK, &nobody).await["header"]["resultCode"], -1006);
        caller.vendor.tell().await;
        let (_, _, told) = caller.hub.heard().remove(0);
        assert_eq!(
            (&told["hooks"][0]["resultCode"], &told["hooks"][0]["recipientGroupingKey"]),
            (&json!("3019"), &json!("nh"))
        );
        let day = korean(caller.vendor.now()).format("%Y-%m-%d");
        let listed = |path: &str| TALK.replace("raw-messages", path);
        let results = listed(&format!("message-results?startUpdateDate={day}%2000:00&endUpdateDate={day}%2023:59"));
        let row = &get(&caller, &results).await["messages"][0];
        assert_eq!((&row["messageStatus"], row.get("recipientGroupingKey")), (&json!("FAILED"), None));
        let found =
            get(&caller, &listed(&format!("messages?startRequestDate={day}%2000:00&endRequestDate={day}%2023:59")))
                .await;
        assert_eq!(found["messageSearchResultResponse"]["messages"][0]["recipientGroupingKey"], "nh");
    }

    /// RCS takes one at a time, from no mobile number, and is only listed.
    #[tokio::test]
    async fn rcs_is_asked_for() {
        let caller = caller().await;
        let body = |chatbot: &str| json!({ "brandId": BRAND_ID, "chatbotId": chatbot, "recipientNumber": "+821000000009", "body": "x" });
        assert_eq!(post(&caller, RCS, &body("01012345678")).await["header"]["resultCode"], -4010);
        let id = post(&caller, RCS, &body("0212345678")).await["messageId"].as_str().unwrap().to_owned();
        caller.vendor.tell().await;
        assert_eq!(caller.hub.heard().len(), 0);
        let one = get(&caller, &format!("{RCS}/{id}")).await;
        let one = &one["messageRecipient"];
        assert_eq!((&one["messageStatus"], &one["resultCode"]), (&json!("FAILED"), &json!(54002)));
        let listed = get(&caller, &format!("{RCS}?messageId={id}")).await;
        assert_eq!((&listed["pagination"]["total"], listed["data"][0].get("resultCode")), (&json!(1), None));
    }
}
