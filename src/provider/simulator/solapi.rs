//! Simulates Solapi v4: texts, KakaoTalk and RCS, in groups of up to 10,000. An HTTP 200 is not acceptance: each
//! message has its own result. Receipts come in arrays, up to five times until the answer is 200, and results can be
//! listed.
//!
//! Requests are signed; a signature is valid for 15 minutes, once. As at the vendor, some booleans are 1 and 0, and a
//! list of messages is an object by their ids.

use std::collections::HashSet;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use data_encoding::HEXLOWER;
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
use crate::clock::Clock;
use crate::crypt;
use crate::error::Result;
use crate::model::cp949;
use crate::shutdown::Shutdown;

/// The only valid API key and secret.
pub const API_KEY: &str = "NCSSIMULATOR0000";
pub const API_SECRET: &str = "SIMULATOR00000000000000000000000";
/// A KakaoTalk channel and an RCS brand; the simulator accepts any other.
pub const PF_ID: &str = "KA01PF000000000000000000000000000";
pub const RCS_BRAND_ID: &str = "BR.simulator";

const ACCOUNT: &str = "20000000000000";
const MAX_MESSAGES: usize = 10_000;
const MAX_SKEW: TimeDelta = TimeDelta::minutes(15);
/// The vendor documents no delays of its retries; these are ours.
const RETRY_AFTER_S: [f64; 4] = [60.0, 300.0, 900.0, 3600.0];
const DEFAULT_PAGE: usize = 20;
const MAX_PAGE: usize = 500;

const PROFILE: VendorProfile = VendorProfile {
    name: "solapi",
    refusal: (500, "InternalError"),
    respond: |vendor, call| Box::pin(respond(vendor, call)),
    refuse: |no| match no {
        RequestRefusal::Credentials => error(403, "InvalidAPIKey"),
        RequestRefusal::Limited => error(429, "TooManyRequests"),
        RequestRefusal::Scripted(status, code) => error(status, code),
    },
    needs_app_user: |kind| !matches!(kind, "SMS" | "LMS" | "MMS"),
    callbacks: Some(CallbackRules {
        product: |_| Some(""),
        build: build_callback,
        max_events: 100,
        retry_after_s: &RETRY_AFTER_S,
    }),
};

/// The longest text of a kind of message: bytes in CP949 for SMS, LMS and MMS, characters for the others.
const MAX_LENGTHS: [(&str, usize); 10] = [
    ("SMS", 90),
    ("LMS", 2000),
    ("MMS", 2000),
    ("ATA", 1000),
    ("CTA", 1000),
    ("CTI", 400),
    ("RCS_SMS", 100),
    ("RCS_LMS", 1300),
    ("RCS_MMS", 1300),
    ("RCS_TPL", 90),
];
const BRAND_CHARS: usize = 1300;
const SUBJECT_BYTES: usize = 40;

/// Starts the simulator.
///
/// # Errors
/// Those of `VendorSimulator::start`.
pub async fn start(setup: SimulatorSetup, shutdown: &Shutdown) -> Result<VendorSimulator> {
    VendorSimulator::start(&PROFILE, setup, shutdown).await
}

fn error(status: u16, code: &str) -> Response<Full<Bytes>> {
    json_response(status, &json!({ "errorCode": code, "errorMessage": format!("simulated: {code}") }))
}

async fn respond(vendor: VendorSimulator, call: ApiRequest) -> ServiceResult {
    if let Err(code) = check_signature(&vendor, call.header("authorization").unwrap_or_default()) {
        return Ok(error(403, code));
    }
    let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
    match (&call.method, parts.as_slice()) {
        (&Method::POST, ["messages", "v4", "send-many", "detail"]) => send(&vendor, &call).await,
        // The Python SDK uses a path of its own.
        (&Method::GET, ["messages", "v4", "list" | "list-old"]) => Ok(list_messages(&vendor, &call, None)),
        (&Method::GET, ["messages", "v4", "groups"]) => Ok(list_groups(&vendor, &call)),
        (&Method::GET, ["messages", "v4", "groups", id]) => Ok(match find_group(&vendor, id) {
            Some(group) => json_response(200, &group),
            None => error(404, "ResourceNotFound"),
        }),
        (&Method::GET, ["messages", "v4", "groups", id, "messages"]) => Ok(list_messages(&vendor, &call, Some(id))),
        (&Method::GET, ["cash", "v1", "balance"]) => {
            Ok(json_response(200, &json!({ "balance": vendor.balance(), "point": 0 })))
        }
        _ => Ok(error(404, "ResourceNotFound")),
    }
}

/// Checks `HMAC-SHA256 apiKey=…, date=…, salt=…, signature=…`. Names may have any case; the date is signed as it is
/// written. Returns the vendor's error code if the signature is not valid.
fn check_signature(vendor: &VendorSimulator, header: &str) -> Result<(), &'static str> {
    const INVALID: &str = "SignatureDoesNotMatch";
    let fields = header.strip_prefix("HMAC-SHA256 ").ok_or("InvalidAuthorization")?;
    let field = |name: &str| {
        let mut pairs = fields.split(", ").filter_map(|pair| pair.split_once('='));
        pairs.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).ok_or(INVALID)
    };
    if field("apikey")? != API_KEY {
        return Err("InvalidAPIKey");
    }
    let (date, salt, signature) = (field("date")?, field("salt")?, field("signature")?);
    let expected = HEXLOWER.encode(&crypt::keyed_hash(API_SECRET.as_bytes(), format!("{date}{salt}").as_bytes()));
    if !(12..=64).contains(&salt.len()) || signature != expected {
        return Err(INVALID);
    }
    let at = DateTime::parse_from_rfc3339(date).map_err(|_| INVALID)?;
    if (Clock::host_now() - at.to_utc()).abs() > MAX_SKEW {
        return Err("RequestTimeTooSkewed");
    }
    if vendor.first_use(signature, MAX_SKEW * 2) { Ok(()) } else { Err("DuplicatedSignature") }
}

/// A message of a request, and the code it is refused with.
struct Draft {
    kind: String,
    to: String,
    from: String,
    text: String,
    subject: Option<String>,
    fields: Value,
    options: Map<String, Value>,
    refusal: Option<&'static str>,
}

async fn send(vendor: &VendorSimulator, call: &ApiRequest) -> ServiceResult {
    let (drafts, body) = match parse_request(call) {
        Ok(read) => read,
        Err(why) => return Ok(json_response(400, &json!({ "errorCode": "ValidationError", "errorMessage": why }))),
    };
    let mut drafts = validated(vendor, drafts, body["allowDuplicates"] == true);
    let recipients: Vec<(String, String)> = drafts.iter().map(|d| (d.to.clone(), d.text.clone())).collect();
    let recipients: Vec<(&str, &str)> = recipients.iter().map(|(to, text)| (to.as_str(), text.as_str())).collect();
    let accept = || {
        for draft in drafts.iter_mut().filter(|draft| draft.refusal.is_none()) {
            draft.refusal = vendor.refusal_reason(&draft.to).and_then(refusal_code);
        }
        accept_valid(vendor, &drafts, &body)
    };
    vendor.answer_with(&recipients, accept).await
}

fn refusal_code(reason: RefusalReason) -> Option<&'static str> {
    match reason {
        RefusalReason::Address => Some("3010"),
        RefusalReason::Internal => Some("1024"),
        RefusalReason::OptedOut => Some("1061"),
        RefusalReason::Balance => Some("1030"),
        RefusalReason::Credentials => None,
    }
}

/// Parses a request into its messages and the whole JSON; or returns what is wrong with it.
fn parse_request(call: &ApiRequest) -> Result<(Vec<Draft>, Value), &'static str> {
    if !call.is_json() {
        return Err("content-type must be application/json");
    }
    let body: Value = serde_json::from_slice(&call.body).map_err(|_| "the body is no JSON")?;
    let messages = body["messages"]
        .as_array()
        .filter(|m| (1..=MAX_MESSAGES).contains(&m.len()))
        .ok_or("1 to 10000 messages are needed")?;
    let mut drafts = Vec::new();
    for message in messages {
        // A message may have several recipients.
        let to: Vec<&str> = match &message["to"] {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            other => vec![other.as_str().unwrap_or_default()],
        };
        for to in to {
            drafts.push(draft(message, to)?);
        }
    }
    Ok((drafts, body))
}

fn draft(message: &Value, to: &str) -> Result<Draft, &'static str> {
    let fields = message.get("customFields").filter(|fields| !fields.is_null());
    if let Some(fields) = fields {
        let fields = fields.as_object().ok_or("customFields must be an object")?;
        let fits =
            |(name, value): (&String, &Value)| name.len() <= 30 && value.as_str().is_some_and(|v| v.len() <= 100);
        if !fields.iter().all(fits) {
            return Err("customFields: names up to 30 characters, texts up to 100");
        }
    }
    let mut options = Map::new();
    for name in ["kakaoOptions", "rcsOptions", "naverOptions", "imageId"] {
        options.insert(name.to_owned(), message.get(name).cloned().unwrap_or_default());
    }
    let subject = text_field(message, "subject").map(str::to_owned);
    let message_text = text_field(message, "text").unwrap_or_default().to_owned();
    let kind = match text_field(message, "type") {
        Some(kind) => kind.to_owned(),
        None => detect_kind(&options, subject.is_some(), &message_text).to_owned(),
    };
    Ok(Draft {
        kind,
        to: to.to_owned(),
        from: text_field(message, "from").unwrap_or_default().to_owned(),
        text: message_text,
        subject,
        fields: fields.cloned().unwrap_or_else(|| json!({})),
        options,
        refusal: None,
    })
}

/// Returns the kind of a message that names none (`autoTypeDetect`).
fn detect_kind(options: &Map<String, Value>, has_subject: bool, message_text: &str) -> &'static str {
    let has = |name: &str| options.get(name).is_some_and(|value| !value.is_null());
    let kakao = options.get("kakaoOptions").unwrap_or(&Value::Null);
    if has("kakaoOptions") {
        let template = text_field(kakao, "templateId").is_some();
        return if template { "ATA" } else { "CTA" };
    }
    if has("rcsOptions") {
        return if has_subject { "RCS_LMS" } else { "RCS_SMS" };
    }
    match () {
        () if has("naverOptions") => "NSA",
        () if has("imageId") => "MMS",
        () if has_subject || cp949::length(message_text).is_ok_and(|bytes| bytes > 90) => "LMS",
        () => "SMS",
    }
}

/// Sets the codes of the messages that are not valid.
fn validated(vendor: &VendorSimulator, mut drafts: Vec<Draft>, duplicates: bool) -> Vec<Draft> {
    let mut seen = HashSet::new();
    for draft in &mut drafts {
        draft.refusal = validation_code(vendor, draft);
        if draft.refusal.is_none() && !seen.insert(draft.to.clone()) && !duplicates {
            draft.refusal = Some("1026");
        }
    }
    drafts
}

fn validation_code(vendor: &VendorSimulator, draft: &Draft) -> Option<&'static str> {
    let is_text = matches!(draft.kind.as_str(), "SMS" | "LMS" | "MMS");
    if draft.to.is_empty() || draft.text.is_empty() && draft.options["kakaoOptions"].is_null() {
        return Some("1010");
    }
    if !is_recipient(&draft.to) || is_text && !is_sender(&draft.from) {
        return Some("1011");
    }
    if !draft.from.is_empty() && !vendor.is_registered(&draft.from) {
        return Some("1062");
    }
    if let Some(code) = options_code(draft) {
        return Some(code);
    }
    if draft.text.contains(|c: char| c.is_control() && c != '\n' && c != '\r' && c != '\t') {
        return Some("1028");
    }
    let longest = MAX_LENGTHS.iter().find(|(kind, _)| *kind == draft.kind).map_or(BRAND_CHARS, |(_, longest)| *longest);
    let length = if is_text { cp949::length(&draft.text).ok() } else { Some(draft.text.chars().count()) };
    match (length, &draft.subject) {
        (None, _) => Some("1029"),
        (Some(length), _) if length > longest => Some("1031"),
        (_, Some(subject)) if is_text => match cp949::length(subject) {
            Ok(bytes) => (bytes > SUBJECT_BYTES).then_some("1014"),
            Err(_) => Some("1029"),
        },
        _ => None,
    }
}

fn options_code(draft: &Draft) -> Option<&'static str> {
    let (kakao, rcs) = (&draft.options["kakaoOptions"], &draft.options["rcsOptions"]);
    match draft.kind.as_str() {
        "SMS" | "LMS" => None,
        "MMS" => draft.options["imageId"].is_null().then_some("1010"),
        kind if kind.starts_with("RCS_") => text_field(rcs, "brandId").is_none().then_some("1010"),
        _ if kakao.is_null() && draft.options["naverOptions"].is_null() => Some("1010"),
        "NSA" => None,
        _ if text_field(kakao, "pfId").is_none() => Some("1041"),
        "ATA" => text_field(kakao, "templateId").is_none().then_some("1042"),
        kind if kind.starts_with("BMS_") => {
            let targeting = kakao.get("bms").and_then(|bms| text_field(bms, "targeting"));
            (!matches!(targeting, Some("I" | "M" | "N"))).then_some("1010")
        }
        "CTA" | "CTI" => None,
        _ => Some("1011"),
    }
}

/// Accepts the messages that are not refused, and makes the response.
fn accept_valid(vendor: &VendorSimulator, drafts: &[Draft], body: &Value) -> Response<Full<Bytes>> {
    let now = vendor.now();
    let group = format!("G4V{}{:012}", now.format("%Y%m%d%H%M%S"), vendor.next_number());
    let failed = drafts.iter().filter(|draft| draft.refusal.is_some()).count();
    let group_options = json!({ "total": drafts.len(), "failed": failed,
        "allowDuplicates": body["allowDuplicates"] == true, "agent": body["agent"] });
    let (mut refused, mut taken) = (Vec::new(), Vec::new());
    for (n, draft) in drafts.iter().enumerate() {
        let id = format!("M4V{}{:012}", now.format("%Y%m%d%H%M%S"), vendor.next_number());
        let code = draft.refusal.unwrap_or("2000");
        let mut verdict = json!({ "messageId": id, "statusCode": code, "statusMessage": status_text(code) });
        if draft.fields.as_object().is_some_and(|fields| !fields.is_empty()) {
            verdict["customFields"] = draft.fields.clone();
        }
        if draft.refusal.is_none() {
            taken.push(verdict);
            vendor.accept(accepted_message(draft, id, &group, n + 1, &group_options, now));
            continue;
        }
        verdict["to"] = json!(draft.to);
        verdict["from"] = json!(draft.from);
        verdict["type"] = json!(draft.kind);
        verdict["country"] = json!("82");
        verdict["accountId"] = json!(ACCOUNT);
        refused.push(verdict);
    }
    let info = group_info(&group, now, &group_options, &Map::new(), taken.len());
    let mut answer_body = json!({ "failedMessageList": refused, "groupInfo": info });
    if body["showMessageList"] == true {
        answer_body["messageList"] = json!(taken);
    }
    json_response(200, &answer_body)
}

fn accepted_message(
    draft: &Draft,
    id: String,
    group: &str,
    position: usize,
    group_options: &Value,
    at: DateTime<Utc>,
) -> AcceptedMessage {
    let mut options = draft.options.clone();
    options.insert("customFields".to_owned(), draft.fields.clone());
    options.insert("group".to_owned(), group_options.clone());
    let reference = draft.fields.as_object().and_then(|fields| fields.values().find_map(Value::as_str));
    AcceptedMessage {
        id,
        request: group.to_owned(),
        place: position,
        kind: draft.kind.clone(),
        from: Some(draft.from.clone()).filter(|from| !from.is_empty()),
        to: draft.to.clone(),
        subject: draft.subject.clone(),
        text: draft.text.clone(),
        reference: reference.map(str::to_owned),
        at,
        options: Value::Object(options),
    }
}

fn status_text(code: &str) -> &'static str {
    match code {
        "2000" => "정상 접수",
        "3000" => "이통사로 접수 예정",
        "4000" => "수신완료",
        "1010" => "필수 입력 값이 입력되지 않았습니다",
        "1011" => "잘못된 형식의 입력 값이 있습니다",
        "1014" => "제목이 40바이트를 초과했습니다",
        "1026" => "수신번호가 중복되었습니다",
        "1029" => "EUC-KR 범위 밖의 문자가 있습니다",
        "1030" => "잔액이 부족합니다",
        "1031" => "내용이 너무 깁니다",
        "1061" => "080 수신거부",
        "1062" => "발신번호 미등록",
        "3010" => "전화번호 오류",
        "3040" => "전송시간 초과",
        "3043" => "전원 꺼짐",
        "3104" => "카카오톡 미사용자",
        _ => "오류",
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn status_code(end: MessageResult) -> &'static str {
    match end {
        MessageResult::Pending => "3000",
        MessageResult::Delivered => "4000",
        MessageResult::Failed => "3043",
        MessageResult::Expired => "3040",
        MessageResult::NotAUser => "3104",
    }
}

/// Makes the JSON of a listed message, with the vendor's ones and zeros for booleans and its many nulls.
fn message_json(state: &MessageState) -> Value {
    let (message, is_final) = (&state.message, state.result != MessageResult::Pending);
    let changed = time(state.changed_at);
    let options = |name: &str| message.options.get(name).cloned().unwrap_or_default();
    json!({
        "_id": message.id, "messageId": message.id, "groupId": message.request, "accountId": ACCOUNT,
        "type": message.kind, "to": message.to, "from": message.from, "text": message.text, "subject": message.subject,
        "country": "82", "imageId": options("imageId"), "customFields": options("customFields"),
        "status": if is_final { "COMPLETE" } else { "SENDING" },
        "statusCode": status_code(state.result), "reason": status_text(status_code(state.result)),
        "autoTypeDetect": 1, "replacement": 0, "unavailableSenderNumber": 0, "resendCount": 0,
        "networkName": null, "networkCode": null, "clusterKey": null, "currentQueue": null,
        "faxPageCount": null, "voiceDuration": null, "voiceReplied": 0,
        "dateCreated": time(message.at), "dateUpdated": changed,
        "dateProcessed": time(message.at), "dateReported": is_final.then_some(&changed),
        "dateReceived": is_final.then_some(&changed),
        "kakaoOptions": options("kakaoOptions"), "rcsOptions": options("rcsOptions"),
        "naverOptions": options("naverOptions"), "faxOptions": null, "voiceOptions": null,
        "replacements": [], "log": [], "queues": [],
    })
}

/// Lists the messages that match the query, newest first, and only those in `group` if one is given.
fn list_messages(vendor: &VendorSimulator, call: &ApiRequest, group: Option<&str>) -> Response<Full<Bytes>> {
    let query = |name: &str| call.query_value(name);
    let ids: Vec<String> = form_urlencoded::parse(call.query.as_bytes())
        .filter(|(name, _)| name == "messageId" || name.starts_with("messageIds"))
        .map(|(_, id)| id.into_owned())
        .collect();
    let group = group.map(str::to_owned).or(query("groupId"));
    let matches = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    let (to, from, kind, status) = (query("to"), query("from"), query("type"), query("statusCode"));
    let by_change = query("dateType").as_deref() == Some("UPDATED");
    let date = |name: &str| query(name).and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    let (begin, end) = (date("startDate"), date("endDate"));
    let mut messages = vendor.find(|state| {
        let message = &state.message;
        let at = if by_change { state.changed_at } else { message.at };
        (ids.is_empty() || ids.contains(&message.id))
            && matches(&group, &message.request)
            && matches(&to, &message.to)
            && matches(&from, message.from.as_deref().unwrap_or_default())
            && matches(&kind, &message.kind)
            && matches(&status, status_code(state.result))
            && begin.is_none_or(|begin| at >= begin)
            && end.is_none_or(|end| at <= end)
    });
    messages.reverse();
    let limit = call.query_number("limit", DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let start = query("startKey");
    let mut messages_from_key =
        messages.into_iter().skip_while(|s| start.as_ref().is_some_and(|key| s.message.id != *key));
    let messages: Map<String, Value> =
        messages_from_key.by_ref().take(limit).map(|s| (s.message.id.clone(), message_json(&s))).collect();
    let next = messages_from_key.next().map(|state| state.message.id);
    json_response(200, &json!({ "startKey": start, "nextKey": next, "limit": limit, "messageList": messages }))
}

fn find_group(vendor: &VendorSimulator, id: &str) -> Option<Value> {
    let messages = vendor.find(|state| state.message.request == id);
    let first = &messages.first()?.message;
    let mut counts = Map::new();
    let mut add = |name: &str, n: usize| counts.insert(name.to_owned(), json!(n));
    let count = |is: fn(MessageResult) -> bool| messages.iter().filter(|s| is(s.result)).count();
    add("sentTotal", messages.len());
    add("sentSuccess", count(|end| end == MessageResult::Delivered));
    add("sentPending", count(|end| end == MessageResult::Pending));
    add("sentFailed", count(|end| !matches!(end, MessageResult::Delivered | MessageResult::Pending)));
    Some(group_info(id, first.at, &first.options["group"], &counts, messages.len()))
}

fn list_groups(vendor: &VendorSimulator, call: &ApiRequest) -> Response<Full<Bytes>> {
    // The Python SDK names a group by `criteria` and `value`.
    let by_criteria = call.query_value("value").filter(|_| call.query_value("criteria").as_deref() == Some("groupId"));
    let group_id = call.query_value("groupId").or(by_criteria);
    let mut ids: Vec<String> = vendor.find(|_| true).into_iter().map(|state| state.message.request).collect();
    ids.dedup();
    ids.retain(|id| group_id.as_ref().is_none_or(|group_id| group_id == id));
    let limit = call.query_number("limit", DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let newest = ids.into_iter().rev().take(limit);
    let found: Map<String, Value> = newest.filter_map(|id| Some((id.clone(), find_group(vendor, &id)?))).collect();
    json_response(200, &json!({ "startKey": null, "nextKey": null, "limit": limit, "groupList": found }))
}

fn group_info(
    id: &str,
    at: DateTime<Utc>,
    group_options: &Value,
    counts: &Map<String, Value>,
    accepted: usize,
) -> Value {
    let kinds = ["sms", "lms", "mms", "ata", "cta", "cti", "nsa", "rcs_sms", "rcs_lms", "rcs_mms", "rcs_tpl"];
    let for_each_kind =
        |value: Value| kinds.into_iter().map(|kind| (kind.to_owned(), value.clone())).collect::<Map<_, _>>();
    let cash = json!({ "requested": 0, "replacement": 0, "refund": 0, "sum": 0 });
    let mut count = json!({
        "total": group_options["total"], "sentTotal": 0, "sentFailed": 0, "sentSuccess": 0, "sentPending": 0,
        "sentReplacement": 0, "refund": 0, "registeredFailed": group_options["failed"], "registeredSuccess": accepted,
    });
    for (name, n) in counts {
        count[name] = n.clone();
    }
    json!({
        "count": count, "countForCharge": for_each_kind(json!({})), "balance": cash, "point": cash,
        "app": { "profit": for_each_kind(json!(0)), "appId": null }, "log": [{}], "status": "SENDING",
        "allowDuplicates": group_options["allowDuplicates"], "isRefunded": false,
        "accountId": ACCOUNT, "masterAccountId": null,
        "sdkVersion": group_options["agent"]["sdkVersion"], "osPlatform": group_options["agent"]["osPlatform"],
        "apiVersion": "4", "groupId": id, "price": {}, "dateCreated": time(at), "dateUpdated": time(at),
        "scheduledDate": null, "dateSent": null, "dateCompleted": null,
    })
}

fn build_callback(events: &[ReceiptEvent], tries: u32, _now: DateTime<Utc>) -> CallbackRequest {
    let event_json = |events: &ReceiptEvent| {
        let listed = message_json(&events.state);
        let mut data = Map::new();
        for name in [
            "messageId",
            "groupId",
            "type",
            "to",
            "from",
            "statusCode",
            "networkCode",
            "kakaoOptions",
            "rcsOptions",
            "naverOptions",
            "customFields",
            "dateProcessed",
            "dateReported",
            "dateReceived",
        ] {
            data.insert(name.to_owned(), listed[name].clone());
        }
        data.insert("statusMessage".to_owned(), listed["reason"].clone());
        json!({ "eventDataId": events.event_id, "retryCount": tries, "data": data })
    };
    CallbackRequest { body: events.iter().map(event_json).collect(), headers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::vendor::testing::Caller;
    use super::*;

    const SEND: &str = "/messages/v4/send-many/detail";

    async fn caller() -> Caller {
        Caller::at(|setup, shutdown| async move { start(setup, &shutdown).await }).await
    }

    fn header(names: [&str; 4], key: &str, secret: &str, date: &str, salt: &str) -> String {
        let signature = HEXLOWER.encode(&crypt::keyed_hash(secret.as_bytes(), format!("{date}{salt}").as_bytes()));
        let [api, at, with, sign] = names;
        format!("HMAC-SHA256 {api}={key}, {at}={date}, {with}={salt}, {sign}={signature}")
    }

    const NAMES: [&str; 4] = ["apiKey", "date", "salt", "signature"];

    fn signed() -> String {
        let salt = HEXLOWER.encode(&crypt::random());
        header(NAMES, API_KEY, API_SECRET, &Clock::host_now().to_rfc3339(), &salt)
    }

    async fn ask(caller: &Caller, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let headers = [("authorization", &*signed()), ("content-type", "application/json")];
        caller.ask(method, path, &headers, &body.to_string()).await.unwrap()
    }

    /// A signature covers the date as written, with names in any case, and is valid for 15 minutes and once.
    #[tokio::test]
    async fn signature_is_valid_once() {
        let caller = caller().await;
        let ask = async |authorization: &str| {
            let path = "/cash/v1/balance";
            let (_, body) = caller.ask(Method::GET, path, &[("authorization", authorization)], "").await.unwrap();
            body["errorCode"].as_str().unwrap_or("ok").to_owned()
        };
        let now = Clock::host_now();
        let at = |minutes: i64| (now + TimeDelta::minutes(minutes)).to_rfc3339();
        let salt = "0123456789ab";
        let with = |key: &str, secret: &str, date: &str, salt: &str| header(NAMES, key, secret, date, salt);
        for (authorization, said) in [
            (with(API_KEY, API_SECRET, &at(0), salt), "ok"),
            (with(API_KEY, API_SECRET, &at(0), salt), "DuplicatedSignature"),
            (header(["ApiKey", "Date", "Salt", "SIGNATURE"], API_KEY, API_SECRET, &at(1), salt), "ok"),
            // The same moment in another spelling.
            (with(API_KEY, API_SECRET, &now.to_rfc3339_opts(SecondsFormat::Nanos, true), salt), "ok"),
            (with(API_KEY, API_SECRET, &at(-16), salt), "RequestTimeTooSkewed"),
            (with(API_KEY, API_SECRET, &at(16), salt), "RequestTimeTooSkewed"),
            (with(API_KEY, API_SECRET, &at(0), "short"), "SignatureDoesNotMatch"),
            (with(API_KEY, API_SECRET, "yesterday", salt), "SignatureDoesNotMatch"),
            (with(API_KEY, "other", &at(0), salt), "SignatureDoesNotMatch"),
            (with("NCSOTHER", API_SECRET, &at(0), salt), "InvalidAPIKey"),
            ("Bearer x".to_owned(), "InvalidAuthorization"),
        ] {
            assert_eq!(ask(&authorization).await, said, "{authorization}");
        }
    }

    /// Each message is checked by itself: its kind, its length, its options.
    #[tokio::test]
    async fn each_message_has_its_result() {
        let caller = caller().await;
        let kakao = |more: Value| {
            let mut options = json!({ "pfId": PF_ID, "disableSms": true });
            options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            options
        };
        let cases = [
            (json!({ "type": "SMS", "text": "가".repeat(45) }), "2000"),
            (json!({ "type": "SMS", "text": "가".repeat(46) }), "1031"),
            (json!({ "type": "LMS", "text": "가".repeat(1000) }), "2000"),
            (json!({ "type": "LMS", "text": "가".repeat(1001) }), "1031"),
            (json!({ "type": "LMS", "text": "x", "subject": "가".repeat(21) }), "1014"),
            (json!({ "type": "MMS", "text": "x" }), "1010"),
            (json!({ "type": "SMS", "text": "a\u{7}" }), "1028"),
            (json!({ "type": "SMS", "text": "" }), "1010"),
            (json!({ "type": "SMS", "text": "x", "to": "02123456" }), "1011"),
            (json!({ "type": "SMS", "text": "x", "to": "010-1234-5678" }), "1011"),
            (json!({ "type": "SMS", "text": "x", "from": "119" }), "1011"),
            (json!({ "type": "FAX", "text": "x" }), "1010"),
            (json!({ "type": "ATA", "text": "🎉", "kakaoOptions": kakao(json!({ "templateId": "T" })) }), "2000"),
            (json!({ "type": "ATA", "text": "x", "kakaoOptions": kakao(json!({})) }), "1042"),
            (json!({ "type": "ATA", "text": "x", "kakaoOptions": { "templateId": "T" } }), "1041"),
            (json!({ "type": "BMS_FREE", "text": "x", "kakaoOptions": kakao(json!({})) }), "1010"),
            (
                json!({ "type": "BMS_FREE", "text": "x",
                    "kakaoOptions": kakao(json!({ "bms": { "targeting": "I" } })) }),
                "2000",
            ),
            (json!({ "type": "RCS_SMS", "text": "가".repeat(101), "rcsOptions": { "brandId": RCS_BRAND_ID } }), "1031"),
            (json!({ "type": "RCS_SMS", "text": "x", "rcsOptions": {} }), "1010"),
        ];
        let mut messages = Vec::new();
        for (n, (message, _)) in cases.iter().enumerate() {
            let mut whole = json!({ "to": format!("010123456{n:02}"), "from": "0212345678",
                "customFields": { "n": n.to_string() } });
            whole.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
            messages.push(whole);
        }
        let (_, answer) =
            ask(&caller, Method::POST, SEND, &json!({ "messages": messages, "showMessageList": true })).await;
        let mut said = vec![""; cases.len()];
        let verdicts = [&answer["messageList"], &answer["failedMessageList"]];
        for verdict in verdicts.into_iter().flat_map(|list| list.as_array().unwrap()) {
            let n: usize = verdict["customFields"]["n"].as_str().unwrap().parse().unwrap();
            said[n] = verdict["statusCode"].as_str().unwrap();
        }
        for ((message, expected), said) in cases.iter().zip(said) {
            assert_eq!(said, *expected, "{message}");
        }
        let (status, _) = ask(&caller, Method::POST, SEND, &json!({ "messages": [] })).await;
        assert_eq!(status, 400);
        let long = json!([{ "to": "01012345678", "from": "0212345678", "text": "x",
            "customFields": { "a": "x".repeat(101) } }]);
        assert_eq!(ask(&caller, Method::POST, SEND, &json!({ "messages": long })).await.0, 400);
    }

    /// A list is read page by page, newest first, each message once.
    #[tokio::test]
    async fn a_list_is_read_page_by_page() {
        let caller = caller().await;
        let to: Vec<Value> = (0..5).map(|n| json!(format!("0101234560{n}"))).collect();
        let messages = json!([{ "to": to, "from": "0212345678", "text": "x" }]);
        ask(&caller, Method::POST, SEND, &json!({ "messages": messages })).await;
        let (mut key, mut ids) = (String::new(), Vec::new());
        for page in [2, 2, 1] {
            let (_, list) =
                ask(&caller, Method::GET, &format!("/messages/v4/list?limit=2&startKey={key}"), &Value::Null).await;
            let found = list["messageList"].as_object().unwrap();
            assert_eq!(found.len(), page);
            assert!(found.values().all(|message| message["autoTypeDetect"] == 1 && message["replacement"] == 0));
            ids.extend(found.keys().cloned());
            key = list["nextKey"].as_str().unwrap_or_default().to_owned();
        }
        assert_eq!(key, "");
        ids.sort();
        let taken: Vec<String> = caller.vendor.records().into_iter().map(|taken| taken.id).collect();
        assert_eq!(ids, taken);
        let later = (Clock::host_now() + TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
        let (_, list) = ask(&caller, Method::GET, &format!("/messages/v4/list?startDate={later}"), &Value::Null).await;
        assert_eq!(list["messageList"], json!({}));
    }
}
