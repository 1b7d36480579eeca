//! Solapi (CoolSMS) messages v4 (`/messages/v4/send-many/detail`, `/messages/v4/list`): SMS, LMS, MMS, AlimTalk, brand
//! messages and RCS.
//!
//! Every request has a new signature (HMAC-SHA256 over its date and a random salt), because Solapi accepts a signature
//! once. A 200 is not acceptance: each message has its own result in the response. Solapi has no idempotency key, but
//! repeats `customFields` in responses, lists and receipts, so our reference goes there. Its own fallback to SMS is
//! switched off.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use data_encoding::HEXLOWER;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::crypt;
use crate::error::{Result, excerpt};
use crate::model::capability::{Batch, Capability};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::model::pace::LimitScope;
use crate::model::phone::{self, KOREA};
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Options};
use super::http::ClientSettings;
use super::http::{Failure, HttpResponse};
use super::vendor::{
    self, ErrorCodes, ResultCodes, VendorApi, check_secret, from_kst, is_earlier_attempt, matching_request,
    outcome_by_status, outcomes_of_refusal, rejected, send_valid, text_or_number, vendor_text,
};
use super::window::PollWindow;
use super::{BoxFuture, Callback, CallbackError, LookupResult, Provider, ReceiptPage, Receipts, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "solapi",
    description: "Solapi (CoolSMS) v4: SMS, LMS, MMS, AlimTalk, brand messages, RCS",
    options: &[
        ("api-key", "the account's API key; needed"),
        ("api-secret", "the account's API secret; needed"),
        ("from", "the sender's number, registered at Solapi; needed"),
        ("pf-id", "the KakaoTalk channel; needed for KAKAO_ALIMTALK and KAKAO_BRAND_MESSAGE"),
        ("rcs-brand-id", "the RCS brand; needed for RCS"),
        ("receipt-key", "the text after ?key= in the webhook's URL at Solapi; without it webhooks are refused"),
        ("base-url", "the URL of the API (https://api.solapi.com)"),
        ("channels", "all channels that the options above allow (the default), or fewer: SMS+LMS+…"),
    ],
    build: |options, common| Ok(Arc::new(Solapi::new(options, common)?)),
};

const SEND_PATH: &str = "/messages/v4/send-many/detail";
const LIST_PATH: &str = "/messages/v4/list";
/// Solapi accepts 10,000; a smaller request leaves fewer unknown outcomes when its response is lost.
const MAX_BATCH: usize = 1000;
/// The field of `customFields` with our reference.
const REFERENCE_FIELD: &str = "notihub";
/// Results of one page: with all their texts they stay below `http::LIST_BYTES`.
const RESULTS_PAGE: &str = "100";
/// A look-up reads at most this many messages of one number in a page, and this many pages.
const LOOKUP_PAGE: &str = "500";
const LOOKUP_PAGES: usize = 5;

const HOUR: u64 = 3600;

/// Values of `errorCode`: Solapi refused the whole request.
const REQUEST_ERRORS: ErrorCodes = ErrorCodes(&[
    // A wrong clock needs an operator, as a wrong key does.
    (
        ErrorClass::Credentials,
        &[
            "InvalidAPIKey",
            "InvalidApiKey",
            "SignatureDoesNotMatch",
            "RequestTimeTooSkewed",
            "Unauthorized",
            "Forbidden",
        ],
    ),
    (ErrorClass::Quota, &["NotEnoughBalance"]),
    (ErrorClass::Throttled, &["TooManyRequests"]),
    // The next attempt has a new signature.
    (
        ErrorClass::ProviderInternal,
        &["DuplicatedSignature", "InternalError", "InternalServerError", "ServiceUnavailable"],
    ),
    (ErrorClass::Content, &["BadRequest", "ValidationError", "InvalidParameter"]),
]);

/// The code of a message to a number that the request has twice. Solapi accepted an earlier message to it; whether this
/// one, the code does not say.
const DUPLICATE: &str = "1026";

const RESULTS: ResultCodes = ResultCodes {
    delivered: &["4000"],
    pending: &["2000", "3000", DUPLICATE],
    expired: &["3040"],
    failed: ErrorCodes(&[
        (ErrorClass::Content, &["1010", "1011", "1014", "1027", "1028", "1029", "1031"]),
        (ErrorClass::ProviderInternal, &["1024", "2024", "3012", "3024", "3053"]),
        (ErrorClass::Quota, &["1030", "2230"]),
        (ErrorClass::Credentials, &["2063"]),
        (ErrorClass::Sender, &["1041", "1062", "2062", "3013", "3059", "3101"]),
        (
            ErrorClass::Template,
            &[
                "1042", "1043", "1044", "1045", "1046", "1047", "1048", "1049", "1050", "1051", "1052", "1053", "3103",
                "3105",
            ],
        ),
        (ErrorClass::OptedOut, &["1060", "2060", "1061", "2061", "3047"]),
        (ErrorClass::Spam, &["1064", "2064", "2254", "3054", "3055"]),
        (ErrorClass::Address, &["3010", "3032"]),
        (ErrorClass::NotReachable, &["1058", "3058", "3102", "3104", "3107"]),
        (ErrorClass::HandsetUnreachable, &["3041", "3042", "3043", "3044", "3045", "3046"]),
        (ErrorClass::OutsideHours, &["3108"]),
    ]),
};

struct Solapi {
    name: String,
    api: VendorApi,
    clock: Clock,
    api_key: String,
    api_secret: String,
    from: String,
    pf_id: Option<String>,
    rcs_brand_id: Option<String>,
    receipt_key: Option<String>,
    channels: Vec<Channel>,
}

impl Solapi {
    fn new(options: &mut Options, common: &ClientSettings) -> Result<Solapi> {
        let (key, secret) = (options.require("api-key")?, options.require("api-secret")?);
        // A key that a header cannot hold is refused here, and not with each message.
        vendor::secret_header(options, "api-key", AUTHORIZATION, &key)?;
        let (pf_id, brand_id) = (options.optional("pf-id"), options.optional("rcs-brand-id"));
        let mut able = vec![Channel::Sms, Channel::Lms, Channel::Mms];
        able.extend(pf_id.iter().flat_map(|_| [Channel::KakaoAlimtalk, Channel::KakaoBrandMessage]));
        able.extend(brand_id.iter().map(|_| Channel::Rcs));
        Ok(Solapi {
            name: options.name().to_owned(),
            clock: common.clock.clone(),
            api_key: key,
            api_secret: secret,
            from: vendor::sender_number(options, "from")?,
            pf_id,
            rcs_brand_id: brand_id,
            receipt_key: vendor::callback_secret(options, "receipt-key")?,
            channels: options.channels_or(&able, &able)?,
            api: VendorApi::from_options(options, "https://api.solapi.com", common)?,
        })
    }

    fn headers(&self) -> HeaderMap {
        let date = self.clock.now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let salt = HEXLOWER.encode(&crypt::random());
        // Cannot fail: the key was checked when the account was built, and the other parts are ASCII.
        let value = authorization_header(&self.api_key, &self.api_secret, &date, &salt);
        let value = HeaderValue::from_str(&value).map(|mut value| {
            value.set_sensitive(true);
            (AUTHORIZATION, value)
        });
        HeaderMap::from_iter(value)
    }

    fn message_json(&self, request: &SendRequest<'_>) -> Result<Value, Outcome> {
        let content = request.content;
        let chars = content.body.chars().count();
        let kind = match request.channel {
            Channel::Sms => "SMS",
            // Carriers send an MMS without a picture as LMS, and messages have no pictures yet.
            Channel::Lms | Channel::Mms => "LMS",
            Channel::KakaoAlimtalk => "ATA",
            Channel::KakaoBrandMessage => "BMS_FREE",
            Channel::Rcs if chars <= RCS_SHORT_CHARS => "RCS_SMS",
            Channel::Rcs => "RCS_LMS",
            other => return Err(rejected(ErrorClass::Sender, "channel_not_served", format!("Solapi has no {other}"))),
        };
        let (country, to) = country_and_number(request.to);
        let mut message = json!({
            "to": to, "from": self.from, "country": country.to_string(), "type": kind, "text": content.body,
            "customFields": { REFERENCE_FIELD: request.reference().to_string() },
        });
        match request.channel {
            Channel::KakaoAlimtalk => {
                let Some(template) = &content.template_code else { return Err(no_template()) };
                message["kakaoOptions"] = json!({ "pfId": self.pf_id, "templateId": template, "disableSms": true });
            }
            Channel::KakaoBrandMessage => {
                let bubble = json!({ "targeting": "I", "chatBubbleType": "TEXT" });
                message["kakaoOptions"] = json!({ "pfId": self.pf_id, "disableSms": true, "bms": bubble });
            }
            Channel::Rcs => message["rcsOptions"] = json!({ "brandId": self.rcs_brand_id, "disableSms": true }),
            _ => (),
        }
        if let (Some(subject), "LMS" | "RCS_LMS") = (&content.subject, kind) {
            message["subject"] = Value::from(subject.as_str());
        }
        Ok(message)
    }

    async fn post(&self, requests: Vec<SendRequest<'_>>, messages: Vec<Value>) -> Vec<Outcome> {
        let body = json!({
            "messages": messages,
            // Two deliveries to one number are both wanted.
            "allowDuplicates": true,
            "showMessageList": true,
        });
        match self.api.post(SEND_PATH, &body, self.headers(), requests.len()).await {
            Ok(answer) => outcomes_of(&requests, &answer),
            Err(failure) => vec![failure.into_outcome(); requests.len()],
        }
    }

    async fn get_list(&self, query: &[(&str, &str)]) -> Result<Value, String> {
        let answer =
            self.api.get(LIST_PATH, query, self.headers()).await.map_err(|failure: Failure| failure.to_string())?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status {
            200..=299 if body["messageList"].is_object() => Ok(body),
            status => Err(format!("answered {status} {}", vendor_text(&body["errorCode"]))),
        }
    }

    async fn find_earlier_attempt(&self, request: SendRequest<'_>) -> LookupResult {
        let now = self.clock.now().max(request.created_at);
        let (start, end) = (iso_time(request.created_at - TimeDelta::hours(1)), iso_time(now + TimeDelta::days(1)));
        // The list has numbers as they were sent, without the country code.
        let ((_, to), mut next_key) = (country_and_number(request.to), None::<String>);
        for _ in 0..LOOKUP_PAGES {
            let mut query = vec![
                ("to", to.as_str()),
                ("dateType", "CREATED"),
                ("startDate", &start),
                ("endDate", &end),
                ("limit", LOOKUP_PAGE),
            ];
            query.extend(next_key.as_deref().map(|next_key| ("startKey", next_key)));
            let Ok(body) = self.get_list(&query).await else { return LookupResult::Inconclusive };
            // The list includes messages that Solapi refused on arrival (codes 1xxx); they were not accepted.
            let is_accepted = |row: &Value| {
                let refused =
                    text_or_number(&row["statusCode"]).is_some_and(|code| code.starts_with('1') && code != DUPLICATE);
                !refused
                    && row["customFields"][REFERENCE_FIELD]
                        .as_str()
                        .is_some_and(|text| is_earlier_attempt(text, &request))
            };
            let rows = body["messageList"].as_object();
            if let Some((id, _)) = rows.into_iter().flatten().find(|(_, row)| is_accepted(row)) {
                return LookupResult::Found { provider_ref: Some(id.clone()) };
            }
            next_key = text_or_number(&body["nextKey"]);
            if next_key.is_none() {
                return LookupResult::NotFound;
            }
        }
        LookupResult::Inconclusive
    }

    async fn poll_results(&self, cursor: Option<&str>, now: DateTime<Utc>) -> Result<ReceiptPage, String> {
        let window = PollWindow::from_cursor(cursor, now);
        let (start, end) = (iso_time(window.from), iso_time(window.until));
        let mut query =
            vec![("dateType", "UPDATED"), ("startDate", start.as_str()), ("endDate", &end), ("limit", RESULTS_PAGE)];
        query.extend(window.position.as_deref().map(|key| ("startKey", key)));
        let body = self.get_list(&query).await?;
        let rows = body["messageList"].as_object().into_iter().flatten();
        // Other programs may use the account: only messages with our field count. Messages in progress are skipped.
        let our_receipts =
            rows.filter(|(_, row)| row["customFields"][REFERENCE_FIELD].is_string()).map(|(_, row)| receipt(row));
        let is_final =
            |read: &Result<Receipt, String>| read.as_ref().is_ok_and(|r| r.outcome != ReceiptOutcome::Accepted);
        let receipts = our_receipts.filter(|read| read.is_err() || is_final(read)).collect();
        let (cursor, more) = window.next_cursor(text_or_number(&body["nextKey"]).as_deref(), now);
        Ok(ReceiptPage { receipts, cursor, has_more: more })
    }
}

/// The most characters of a short RCS message; a longer one is sent as `RCS_LMS`.
const RCS_SHORT_CHARS: usize = 100;

/// Splits a number in E.164 as Solapi writes it: country code, and the digits without it. Another text counts as
/// Korean.
fn country_and_number(number: &str) -> (i32, String) {
    phone::dialled(number).unwrap_or((KOREA, number.to_owned()))
}

fn no_template() -> Outcome {
    rejected(
        ErrorClass::Template,
        "template_missing",
        "an AlimTalk needs the code of an approved template: set templateCode",
    )
}

fn iso_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn authorization_header(key: &str, secret: &str, date: &str, salt: &str) -> String {
    let signature = HEXLOWER.encode(&crypt::keyed_hash(secret.as_bytes(), format!("{date}{salt}").as_bytes()));
    format!("HMAC-SHA256 apiKey={key}, date={date}, salt={salt}, signature={signature}")
}

impl Provider for Solapi {
    fn name(&self) -> &str {
        &self.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    /// Solapi stops trying after 25 hours (SMS), 80 hours (LMS, MMS) or 3 days (others); receipts come a little later.
    fn capabilities(&self) -> Vec<Capability> {
        let capability = |channel: &Channel| {
            let (body, hours) = match channel {
                Channel::Sms => (None, 26),
                Channel::Lms => (Some(2000), 81),
                Channel::KakaoBrandMessage => (Some(1300), 73),
                Channel::Mms => (None, 81),
                _ => (None, 73),
            };
            Capability {
                body,
                batch: Batch::Any(MAX_BATCH),
                on_unknown: OnUnknown::Lookup,
                receipt_within: Some(Duration::from_secs(hours * HOUR)),
                ..Capability::of(*channel)
            }
        };
        self.channels.iter().map(capability).collect()
    }

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.message_json(&request) {
                Ok(message) => self.post(vec![request], vec![message]).await.pop().unwrap_or_else(not_mentioned),
                Err(outcome) => outcome,
            }
        })
    }

    fn send_batch<'a>(&'a self, requests: Vec<SendRequest<'a>>) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(send_valid(
            requests,
            |request| self.message_json(request),
            |requests, messages| self.post(requests, messages),
        ))
    }

    fn lookup<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, LookupResult> {
        Box::pin(self.find_earlier_attempt(request))
    }

    /// Solapi signs no webhooks; the query of the URL must have `key=` with the option `receipt-key`.
    fn parse_receipts(&self, callback: &Callback<'_>) -> Result<Receipts, CallbackError> {
        let key = form_urlencoded::parse(callback.query.as_bytes()).find(|(name, _)| name == "key");
        check_secret(self.receipt_key.as_deref(), key.as_ref().map(|(_, value)| value.as_bytes()))?;
        let unreadable = |_| CallbackError::Unreadable("the body is not a JSON array".to_owned());
        let reports: Vec<Value> = serde_json::from_slice(callback.body).map_err(unreadable)?;
        // A report about a group of messages has only counts.
        let of_messages = reports.iter().filter(|report| !report["data"]["count"].is_object());
        Ok(of_messages.map(|report| receipt(&report["data"])).collect())
    }

    fn poll_receipts<'a>(
        &'a self,
        cursor: Option<&'a str>,
        now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Result<ReceiptPage, String>>> {
        Some(Box::pin(self.poll_results(cursor, now)))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.api.check())
    }
}

fn not_mentioned() -> Outcome {
    Outcome::Unknown { code: "answer_incomplete", detail: "the answer does not mention this message".to_owned() }
}

/// Reads a message of a webhook or list. The event key is the same in both, so that a result that came both ways counts
/// once.
fn receipt(data: &Value) -> Result<Receipt, String> {
    let id = text_or_number(&data["messageId"]).ok_or("the report has no messageId")?;
    let code = text_or_number(&data["statusCode"]).ok_or_else(|| format!("{id} has no statusCode"))?;
    let (outcome, class) = RESULTS.interpret(&code);
    let at = ["dateReceived", "dateReported", "dateProcessed"].iter().find_map(|name| from_kst(data[name].as_str()?));
    Ok(Receipt {
        event_key: format!("{id}:{code}"),
        reference: data["customFields"][REFERENCE_FIELD].as_str().and_then(|text| text.parse().ok()),
        provider_ref: Some(id),
        outcome,
        class,
        code: Some(code),
        detail: Some(vendor_text(&data["statusMessage"])).filter(|text| !text.is_empty()),
        occurred_at: at,
    })
}

/// Returns the outcome of each of the requests, in their order, from one response.
fn outcomes_of(requests: &[SendRequest<'_>], answer: &HttpResponse) -> Vec<Outcome> {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        return outcomes_of_refusal(outcome_by_status(answer), requests);
    };
    if !(200..=299).contains(&answer.status) {
        return outcomes_of_refusal(request_refusal(answer, &body), requests);
    }
    let mut outcomes: Vec<Option<Outcome>> = vec![None; requests.len()];
    let mut unmatched = Vec::new();
    for entry in entries(&body, "failedMessageList") {
        let (reference, to) = (entry["customFields"][REFERENCE_FIELD].as_str(), entry["to"].as_str());
        match matching_request(requests, reference, to).and_then(|n| outcomes.get_mut(n)) {
            Some(outcome) => *outcome = Some(outcome_by_code(entry)),
            None => unmatched.push(entry),
        }
    }
    for entry in entries(&body, "messageList") {
        let only_one = if requests.len() == 1 { Some(0) } else { None };
        let index = matching_request(requests, entry["customFields"][REFERENCE_FIELD].as_str(), None).or(only_one);
        if let Some(outcome @ None) = index.and_then(|n| outcomes.get_mut(n)) {
            *outcome = Some(listed_outcome(entry));
        }
    }
    settle_unmatched(requests, &mut outcomes, &unmatched, body["groupInfo"]["count"]["registeredSuccess"].as_u64());
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(not_mentioned)).collect()
}

fn entries<'a>(body: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    body[name].as_array().into_iter().flatten()
}

/// Settles the messages that no entry of the response matches. They are accepted if `successes`, Solapi's count of
/// accepted messages, equals the accepted and the unmatched ones. Of several messages to one number of which only some
/// failed, it is unknown which: their outcome is `Unknown`, and they are looked up.
fn settle_unmatched(
    requests: &[SendRequest<'_>],
    outcomes: &mut [Option<Outcome>],
    unmatched: &[&Value],
    successes: Option<u64>,
) {
    let mut uncertain = 0;
    let mut numbers: Vec<&str> = unmatched.iter().filter_map(|entry| entry["to"].as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let failed: Vec<&Value> =
            unmatched.iter().copied().filter(|entry| entry["to"].as_str() == Some(number)).collect();
        let is_open = |n: &usize| outcomes.get(*n).is_some_and(Option::is_none);
        let candidates: Vec<usize> = (0..requests.len())
            .filter(is_open)
            .filter(|n| requests.get(*n).is_some_and(|request| vendor::is_sent_to(request, number)))
            .collect();
        let all_failed = candidates.len() == failed.len();
        uncertain += if all_failed { 0 } else { candidates.len().saturating_sub(failed.len()) };
        for (n, entry) in candidates.iter().zip(failed.iter().cycle()) {
            let Some(outcome) = outcomes.get_mut(*n) else { continue };
            *outcome = Some(if all_failed { outcome_by_code(entry) } else { not_mentioned() });
        }
    }
    let accepted = outcomes.iter().filter(|o| matches!(o, Some(Outcome::Accepted { .. }))).count();
    let open = outcomes.iter().filter(|o| o.is_none()).count();
    if successes == u64::try_from(accepted + open + uncertain).ok() {
        for outcome in outcomes.iter_mut().filter(|o| o.is_none()) {
            *outcome = Some(Outcome::Accepted { provider_ref: None });
        }
    }
}

/// Returns the outcome of an entry of the list of accepted messages. An unlisted code leaves the outcome unknown: the
/// message may have been accepted.
fn listed_outcome(entry: &Value) -> Outcome {
    let code = text_or_number(&entry["statusCode"]).unwrap_or_default();
    match RESULTS.interpret(&code) {
        (ReceiptOutcome::Failed, None) if !code.is_empty() && code != DUPLICATE => {
            Outcome::Unknown { code: "answer_unreadable", detail: excerpt(&format!("listed with the status {code}")) }
        }
        _ => outcome_by_code(entry),
    }
}

/// Returns the outcome of an entry by its code.
fn outcome_by_code(entry: &Value) -> Outcome {
    let Some(code) = text_or_number(&entry["statusCode"]) else { return not_mentioned() };
    if code == DUPLICATE {
        return Outcome::Unknown { code: "told_duplicate", detail: vendor_text(&entry["statusMessage"]) };
    }
    match RESULTS.interpret(&code) {
        (ReceiptOutcome::Accepted | ReceiptOutcome::Delivered, _) => {
            Outcome::Accepted { provider_ref: text_or_number(&entry["messageId"]) }
        }
        // An unlisted code is a refusal that would repeat: it is treated as permanent.
        (_, class) => rejected(class.unwrap_or(ErrorClass::Content), code, vendor_text(&entry["statusMessage"])),
    }
}

/// Returns the outcome of a response `{"errorCode": …, "errorMessage": …}`: no message of the request was accepted.
fn request_refusal(answer: &HttpResponse, body: &Value) -> Outcome {
    let outcome = outcome_by_status(answer);
    let Some(code) = text_or_number(&body["errorCode"]) else { return outcome };
    let detail = vendor_text(&body["errorMessage"]);
    let class = match (REQUEST_ERRORS.class(&code), &outcome) {
        (Some(class), _) => class,
        (None, Outcome::Rejected { class, .. }) => *class,
        (None, _) => return outcome,
    };
    Outcome::Rejected { class, code, detail, retry_after: answer.retry_after }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::super::simulator::testing::{BUDGET, SHORT, content, rejected, send_request, unknown};
    use super::super::vendor::testing::{ScriptedServer, build, try_build, try_build_with};
    use super::*;
    use crate::model::delivery::DeliveryKey;
    use crate::model::message::Content;

    const KEY: &str = "NCSAYU7YDBXYORXC";
    const SECRET: &str = "MZQ8J0WCT5RJ0PYWGDQNYXH1ZQVE2QYT";
    const RECEIPT_KEY: &str = "0123456789abcdef";
    const NUMBER: &str = "+821012345678";

    fn account(url: &str, budget: Duration) -> Arc<dyn Provider> {
        let options = [
            ("api-key", KEY),
            ("api-secret", SECRET),
            ("from", "02-930-2266"),
            ("pf-id", "KA01PF"),
            ("rcs-brand-id", "BR.1"),
            ("receipt-key", RECEIPT_KEY),
            ("base-url", url),
        ];
        build(&ADAPTER, &options, budget)
    }

    fn of<'a>(channel: Channel, to: &'a str, content: &'a Content) -> SendRequest<'a> {
        SendRequest { channel, ..send_request(to, content) }
    }

    fn template(body: &str) -> Content {
        Content { template_code: Some("KA01TP".to_owned()), ..content(None, body) }
    }

    /// Requests of the vendor's own clients, recorded by a server: `tests/fixtures/solapi`.
    fn recorded(name: &str) -> Vec<Value> {
        let file = format!("{}/tests/fixtures/solapi/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    /// A recorded request without the fields that only the clients send: their name and version, and `autoTypeDetect`.
    /// The country, which Python's client sends and Node's does not, is added.
    fn comparable(mut body: Value) -> Value {
        assert!(body.as_object_mut().unwrap().remove("agent").unwrap()["sdkVersion"].is_string());
        for message in body["messages"].as_array_mut().unwrap() {
            let message = message.as_object_mut().unwrap();
            assert!(matches!(message.remove("autoTypeDetect"), None | Some(Value::Bool(true))));
            message.entry("country").or_insert("82".into());
        }
        body
    }

    /// Our requests are those of the vendor's own clients, Node's 6.0.1 and Python's 5.0.3, field by field.
    #[tokio::test]
    async fn requests_are_those_of_the_vendors_own_clients() {
        let contents = [
            content(None, "안녕"),
            content(Some("제목"), "긴 글"),
            template("주문 완료"),
            content(None, "새 소식"),
            content(None, "알림"),
        ];
        let channels = [Channel::Sms, Channel::Lms, Channel::KakaoAlimtalk, Channel::KakaoBrandMessage, Channel::Rcs];
        for (name, single) in [("node-6.0.1", 5), ("python-5.0.3", 3)] {
            let theirs = recorded(name);
            let api = ScriptedServer::responding(&vec![(200, "{}"); theirs.len()]).await;
            let solapi = account(&api.url, BUDGET);
            let requests: Vec<SendRequest<'_>> =
                channels.iter().zip(&contents).map(|(channel, content)| of(*channel, NUMBER, content)).collect();
            for request in requests.iter().take(single) {
                solapi.send(request.clone()).await;
            }
            solapi.send_batch(requests).await;
            let ours = api.requests();
            let posts = theirs.iter().filter(|their| their["method"] == "POST");
            assert!(posts.clone().count() >= single);
            for (ours, theirs) in ours.iter().zip(posts) {
                assert_eq!(ours.body, comparable(theirs["body"].clone()), "{name}");
                assert_eq!(ours.line, format!("POST {}", theirs["path"].as_str().unwrap()));
                assert_eq!(ours.header("content-type"), theirs["headers"]["content-type"].as_str());
            }
        }
    }

    /// The parts of an Authorization header, names in lower case.
    fn parts(header: &str) -> Vec<(String, String)> {
        let pairs = header.strip_prefix("HMAC-SHA256 ").unwrap().split(", ");
        pairs.map(|pair| pair.split_once('=').unwrap()).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect()
    }

    /// From the clients' date and salt the adapter makes the same signature. Each request has a new one.
    #[tokio::test]
    async fn signatures_are_those_of_the_vendors_own_clients() {
        let mut tried = 0;
        for request in ["node-6.0.1", "python-5.0.3"].into_iter().flat_map(recorded) {
            let theirs = parts(request["headers"]["authorization"].as_str().unwrap());
            let ours = parts(&authorization_header(KEY, SECRET, &theirs[1].1, &theirs[2].1));
            assert_eq!(ours, theirs);
            tried += 1;
        }
        assert!(tried >= 10);
        let api = ScriptedServer::responding(&[(200, "{}"), (200, "{}")]).await;
        let (solapi, content) = (account(&api.url, BUDGET), content(None, "x"));
        for _ in 0..2 {
            solapi.send(send_request(NUMBER, &content)).await;
        }
        let [first, second] = [0, 1].map(|n| parts(api.requests()[n].header("authorization").unwrap()));
        assert_ne!((&first[2], &first[3]), (&second[2], &second[3]), "a signature is taken once");
        assert!((12..=64).contains(&first[2].1.len()));
    }

    /// The hub's clock counts, not the host's: with a wrong clock the vendor would refuse every signature, and a
    /// look-up would end before the message.
    #[tokio::test]
    async fn signatures_and_lookups_use_the_hubs_clock() {
        let api = ScriptedServer::responding(&[(200, "{}"), (503, "")]).await;
        let clock = Clock::manual(DateTime::from_timestamp(1_900_000_000, 0).unwrap());
        let options = [("api-key", KEY), ("api-secret", SECRET), ("from", "029302266"), ("base-url", &api.url)];
        let solapi =
            try_build_with(&ADAPTER, &options, ClientSettings { clock, ..ClientSettings::with_budget(BUDGET) })
                .unwrap();
        let content = content(None, "x");
        solapi.send(send_request(NUMBER, &content)).await;
        solapi.lookup(send_request(NUMBER, &content)).await;
        let asked = api.requests();
        assert_eq!(parts(asked[0].header("authorization").unwrap())[1].1, "2030-03-17T17:46:40Z");
        assert!(asked[1].line.contains("&endDate=2030-03-18T17%3A46%3A40Z&"), "{}", asked[1].line);
    }

    fn group(success: usize, failed: &Value, messages: &Value) -> String {
        json!({ "failedMessageList": failed, "messageList": messages, "groupInfo": { "count": {
            "total": success + failed.as_array().unwrap().len(), "registeredSuccess": success,
            "registeredFailed": failed.as_array().unwrap().len() } } })
        .to_string()
    }

    fn numbered<'a>(numbers: &[&'a str], content: &'a Content) -> Vec<SendRequest<'a>> {
        let one = |(n, to): (usize, &&'a str)| {
            let request = send_request(to, content);
            SendRequest { key: DeliveryKey { no: i16::try_from(n).unwrap() + 1, ..request.key }, ..request }
        };
        numbers.iter().enumerate().map(one).collect()
    }

    fn read(requests: &[SendRequest<'_>], body: String) -> Vec<Outcome> {
        outcomes_of(requests, &HttpResponse { status: 200, body: body.into_bytes(), retry_after: None })
    }

    /// A 200 is not acceptance: each message has its own outcome, also two to one number.
    #[test]
    fn each_message_has_its_outcome() {
        let content = content(None, "x");
        let requests = numbered(&[NUMBER, "+821011112222", NUMBER], &content);
        let field = |n: usize| json!({ REFERENCE_FIELD: requests[n].reference().to_string() });
        let failed = json!([{ "to": "01012345678", "statusCode": "1062", "messageId": "M3", "customFields": field(2),
            "statusMessage": "발신번호 미등록" }]);
        // In another order than requested, with the failed message in both lists.
        let messages = json!([
            { "messageId": "M3", "statusCode": "1062", "customFields": field(2) },
            { "messageId": "M2", "statusCode": "2000", "customFields": field(1) },
            { "messageId": "M1", "statusCode": "2000", "customFields": field(0) },
        ]);
        let outcomes = read(&requests, group(2, &failed, &messages));
        assert_eq!(outcomes[0], Outcome::Accepted { provider_ref: Some("M1".to_owned()) });
        assert_eq!(outcomes[1], Outcome::Accepted { provider_ref: Some("M2".to_owned()) });
        assert_eq!(rejected(outcomes[2].clone()), (ErrorClass::Sender, "1062".to_owned()));
    }

    /// A response that repeats no reference: a message is matched by a number that only it goes to; of two messages to
    /// one number of which one failed, both outcomes are unknown.
    #[test]
    fn recipient_of_an_entry_is_never_guessed() {
        let content = content(None, "x");
        let requests = numbered(&[NUMBER, NUMBER, "+821011112222", "+821033334444"], &content);
        let entry = |to: &str| json!({ "to": to, "statusCode": "3010", "messageId": "M" });
        let accepted = Outcome::Accepted { provider_ref: None };
        let none = json!([]);

        let outcomes = read(&requests, group(2, &json!([entry("01012345678"), entry("01011112222")]), &none));
        assert_eq!(unknown(outcomes[0].clone()), "answer_incomplete");
        assert_eq!(unknown(outcomes[1].clone()), "answer_incomplete");
        assert_eq!(rejected(outcomes[2].clone()).0, ErrorClass::Address);
        assert_eq!(outcomes[3], accepted);

        let both = json!([entry("01012345678"), entry("01012345678")]);
        let outcomes = read(&requests, group(2, &both, &none));
        assert_eq!(rejected(outcomes[0].clone()).0, ErrorClass::Address);
        assert_eq!(rejected(outcomes[1].clone()).0, ErrorClass::Address);
        assert_eq!((&outcomes[2], &outcomes[3]), (&accepted, &accepted));

        let abroad = numbered(&["+12025550123", NUMBER], &content);
        let outcomes = read(&abroad, group(1, &json!([entry("2025550123")]), &none));
        assert_eq!(rejected(outcomes[0].clone()).0, ErrorClass::Address);
        assert_eq!(outcomes[1], accepted);
        let twice = numbered(&["+12025550123", "+12025550123"], &content);
        for outcome in read(&twice, group(1, &json!([entry("2025550123")]), &none)) {
            assert_eq!(unknown(outcome), "answer_incomplete");
        }

        for (success, said) in [(4, true), (3, false), (5, false), (0, false)] {
            for outcome in read(&requests, group(success, &none, &none)) {
                assert_eq!(outcome == accepted, said, "{success}: the sum must fit");
                assert_eq!(matches!(outcome, Outcome::Unknown { .. }), !said);
            }
        }
        for outcome in read(&requests, "{}".to_owned()) {
            assert_eq!(unknown(outcome), "answer_incomplete");
        }
    }

    #[tokio::test]
    async fn error_codes_decide_about_a_request() {
        let error = |status: u16, word: &str| (status, json!({ "errorCode": word, "errorMessage": "왜" }).to_string());
        let api = ScriptedServer::responding(&[
            error(403, "InvalidAPIKey"),
            error(403, "SignatureDoesNotMatch"),
            error(403, "RequestTimeTooSkewed"),
            error(403, "DuplicatedSignature"),
            error(400, "NotEnoughBalance"),
            error(429, "TooManyRequests"),
            error(500, "InternalServerError"),
            error(400, "ValidationError"),
            error(400, "SomethingNew"),
            error(500, "SomethingNew"),
            (502, "<html>".to_owned()),
            (200, "<html>".to_owned()),
            (200, group(0, &json!([{ "to": "x", "statusCode": "1026" }]), &json!([]))),
        ])
        .await;
        let (solapi, content) = (account(&api.url, BUDGET), content(None, "x"));
        let send = || solapi.send(send_request(NUMBER, &content));
        for (class, code) in [
            (ErrorClass::Credentials, "InvalidAPIKey"),
            (ErrorClass::Credentials, "SignatureDoesNotMatch"),
            (ErrorClass::Credentials, "RequestTimeTooSkewed"),
            (ErrorClass::ProviderInternal, "DuplicatedSignature"),
            (ErrorClass::Quota, "NotEnoughBalance"),
            (ErrorClass::Throttled, "TooManyRequests"),
            (ErrorClass::ProviderInternal, "InternalServerError"),
            (ErrorClass::Content, "ValidationError"),
            (ErrorClass::Content, "SomethingNew"),
        ] {
            let outcome = send().await;
            assert!(!format!("{outcome:?}").contains(SECRET));
            assert_eq!(rejected(outcome), (class, code.to_owned()));
        }
        for code in ["http_5xx", "http_5xx", "answer_unreadable", "answer_incomplete"] {
            assert_eq!(unknown(send().await), code);
        }
        for (api, code) in
            [(ScriptedServer::closing().await, "answer_cut"), (ScriptedServer::silent().await, "no_answer")]
        {
            let requests = numbered(&[NUMBER, NUMBER], &content);
            for outcome in account(&api.url, SHORT).send_batch(requests).await {
                assert_eq!(unknown(outcome), code);
            }
        }
    }

    #[tokio::test]
    async fn invalid_message_does_not_keep_the_others_back() {
        let api = ScriptedServer::responding(&[(200, group(1, &json!([]), &json!([])))]).await;
        let (with, without) = (template("x"), content(None, "x"));
        let requests =
            vec![of(Channel::KakaoAlimtalk, NUMBER, &without), of(Channel::KakaoAlimtalk, "+821011112222", &with)];
        let outcomes = account(&api.url, BUDGET).send_batch(requests).await;
        assert_eq!(rejected(outcomes[0].clone()), (ErrorClass::Template, "template_missing".to_owned()));
        assert_eq!(outcomes[1], Outcome::Accepted { provider_ref: None });
        assert_eq!(api.requests()[0].body["messages"].as_array().unwrap().len(), 1);
    }

    fn told(solapi: &Arc<dyn Provider>, query: &str, body: &[u8]) -> Result<Receipts, CallbackError> {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        solapi.parse_receipts(&Callback { headers: &HeaderMap::new(), query, body, now })
    }

    /// S0-40, S0-42, S0-43: reports are read by their codes; one that cannot be read does not lose the others.
    #[test]
    fn receipts_are_read() {
        let solapi = account("https://api.solapi.com", BUDGET);
        let content = content(None, "x");
        let ours = send_request(NUMBER, &content).reference();
        let report = |code: &str| {
            json!({ "eventDataId": "E1", "retryCount": 0, "data": { "messageId": "M1", "statusCode": code,
                "statusMessage": "말", "dateReceived": "2027-01-15T17:00:00.000+09:00",
                "customFields": { REFERENCE_FIELD: ours.to_string() } } })
        };
        let query = format!("a=b&key={RECEIPT_KEY}");
        for (code, outcome, class) in [
            ("2000", ReceiptOutcome::Accepted, None),
            ("3000", ReceiptOutcome::Accepted, None),
            ("4000", ReceiptOutcome::Delivered, None),
            ("3040", ReceiptOutcome::Expired, None),
            ("1029", ReceiptOutcome::Failed, Some(ErrorClass::Content)),
            ("1030", ReceiptOutcome::Failed, Some(ErrorClass::Quota)),
            ("1061", ReceiptOutcome::Failed, Some(ErrorClass::OptedOut)),
            ("1062", ReceiptOutcome::Failed, Some(ErrorClass::Sender)),
            ("2063", ReceiptOutcome::Failed, Some(ErrorClass::Credentials)),
            ("3032", ReceiptOutcome::Failed, Some(ErrorClass::Address)),
            ("3043", ReceiptOutcome::Failed, Some(ErrorClass::HandsetUnreachable)),
            ("3053", ReceiptOutcome::Failed, Some(ErrorClass::ProviderInternal)),
            ("3055", ReceiptOutcome::Failed, Some(ErrorClass::Spam)),
            ("3103", ReceiptOutcome::Failed, Some(ErrorClass::Template)),
            ("3104", ReceiptOutcome::Failed, Some(ErrorClass::NotReachable)),
            ("3108", ReceiptOutcome::Failed, Some(ErrorClass::OutsideHours)),
            ("9876", ReceiptOutcome::Failed, None),
        ] {
            let body = json!([report(code)]).to_string();
            let read = told(&solapi, &query, body.as_bytes()).unwrap().remove(0).unwrap();
            assert_eq!((read.outcome, read.class, read.code.as_deref()), (outcome, class, Some(code)));
            assert_eq!((read.reference, read.provider_ref.as_deref()), (Some(ours), Some("M1")));
            assert_eq!(read.event_key, format!("M1:{code}"));
            assert_eq!(read.occurred_at, DateTime::from_timestamp(1_800_000_000, 0));
        }
        let group = json!({ "eventDataId": "E2", "data": { "groupId": "G", "count": { "total": 1 } } });
        let foreign = json!({ "data": { "messageId": "M9", "statusCode": "4000", "customFields": null } });
        let body = json!([report("4000"), { "data": { "statusCode": "4000" } }, 7, group, foreign]).to_string();
        let read = told(&solapi, &query, body.as_bytes()).unwrap();
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
        assert_eq!(read[3].as_ref().unwrap().reference, None);
    }

    #[test]
    fn callback_without_the_key_is_refused() {
        let solapi = account("https://api.solapi.com", BUDGET);
        for query in ["", "key=", "key=0123456789abcde", "key=0123456789abcdeF", "Key=0123456789abcdef", "key"] {
            assert!(matches!(told(&solapi, query, b"[]"), Err(CallbackError::NotAuthentic(_))), "{query}");
        }
        let query = format!("key={RECEIPT_KEY}");
        for body in [&b""[..], b"{}", b"null", b"\xff", b"[1"] {
            assert!(matches!(told(&solapi, &query, body), Err(CallbackError::Unreadable(_))));
        }
        let options = [("api-key", KEY), ("api-secret", SECRET), ("from", "029302266")];
        assert_eq!(told(&build(&ADAPTER, &options, BUDGET), &query, b"[]"), Err(CallbackError::NotSupported));
    }

    fn page(rows: &Value, next: Option<&str>) -> (u16, String) {
        (200, json!({ "limit": 500, "nextKey": next, "messageList": rows }).to_string())
    }

    #[tokio::test]
    async fn unknown_outcome_is_looked_up() {
        let content = content(None, "x");
        let present = SendRequest { attempt: 3, ..send_request(NUMBER, &content) };
        let row = |request: &SendRequest<'_>, code: &str| {
            let fields = json!({ REFERENCE_FIELD: request.reference().to_string() });
            json!({ "statusCode": code, "customFields": fields })
        };
        let before = SendRequest { attempt: 2, ..present.clone() };
        let another = SendRequest { key: DeliveryKey { no: 9, ..before.key }, ..before.clone() };
        let api = ScriptedServer::responding(&[
            page(&json!({ "M0": row(&another, "4000") }), Some("next")),
            page(&json!({ "M1": row(&before, "3000") }), None),
            page(
                &json!({ "M0": row(&another, "4000"), "M2": row(&present, "2000"), "M3": row(&before, "1062") }),
                None,
            ),
            (503, String::new()),
            (200, "{}".to_owned()),
        ])
        .await;
        let solapi = account(&api.url, BUDGET);
        let looked = solapi.lookup(present.clone()).await;
        assert_eq!(looked, LookupResult::Found { provider_ref: Some("M1".to_owned()) });
        assert_eq!(
            solapi.lookup(present.clone()).await,
            LookupResult::NotFound,
            "others', its own, and one refused at intake"
        );
        assert_eq!(solapi.lookup(present.clone()).await, LookupResult::Inconclusive);
        assert_eq!(solapi.lookup(present).await, LookupResult::Inconclusive);
        let asked = api.requests();
        assert!(
            asked[0].line.starts_with("GET /messages/v4/list?to=01012345678&dateType=CREATED&"),
            "{}",
            asked[0].line
        );
        assert!(asked[1].line.ends_with("&startKey=next"), "{}", asked[1].line);
    }

    /// A look-up uses a foreign number as it was sent; otherwise an accepted message would be sent again.
    #[tokio::test]
    async fn foreign_number_is_looked_up_as_it_was_sent() {
        let content = content(None, "x");
        let api = ScriptedServer::responding(&[(200, group(1, &json!([]), &json!([]))), page(&json!({}), None)]).await;
        let (solapi, abroad) = (account(&api.url, BUDGET), send_request("+12025550123", &content));
        solapi.send(abroad.clone()).await;
        assert_eq!(solapi.lookup(SendRequest { attempt: 2, ..abroad }).await, LookupResult::NotFound);
        let asked = api.requests();
        let message = &asked[0].body["messages"][0];
        assert_eq!((&message["to"], &message["country"]), (&json!("2025550123"), &json!("1")));
        assert!(asked[1].line.starts_with("GET /messages/v4/list?to=2025550123&"), "{}", asked[1].line);
    }

    /// Polling finds results that no webhook reported, page by page; other programs' and unfinished messages are
    /// skipped.
    #[tokio::test]
    async fn results_are_polled() {
        let content = content(None, "x");
        let ours = json!({ REFERENCE_FIELD: send_request(NUMBER, &content).reference().to_string() });
        let rows = json!({
            "M1": { "messageId": "M1", "statusCode": "4000", "customFields": ours },
            "M2": { "messageId": "M2", "statusCode": "4000", "customFields": {} },
            "M3": { "messageId": "M3", "statusCode": "3000", "customFields": ours },
            "M4": { "messageId": "M4", "customFields": ours },
        });
        let api =
            ScriptedServer::responding(&[page(&rows, Some("k 1")), page(&json!({}), None), (500, String::new())]).await;
        let (solapi, now) = (account(&api.url, BUDGET), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let first = solapi.poll_receipts(None, now).unwrap().await.unwrap();
        let keys: Vec<Option<&str>> =
            first.receipts.iter().map(|r| r.as_ref().ok().map(|r| r.event_key.as_str())).collect();
        assert_eq!((keys, first.has_more), (vec![Some("M1:4000"), None], true));
        let second = solapi.poll_receipts(Some(&first.cursor), now).unwrap().await.unwrap();
        assert_eq!((second.receipts.len(), second.has_more), (0, false));
        assert!(api.requests()[1].line.ends_with("&startKey=k+1"));
        let failed = solapi.poll_receipts(Some(&second.cursor), now).unwrap().await.unwrap_err();
        assert!(failed.contains("500") && !failed.contains(SECRET), "{failed}");
    }

    #[test]
    fn channels_follow_from_the_options() {
        let base = [("api-key", KEY), ("api-secret", SECRET), ("from", "029302266")];
        let channels: Vec<Channel> = build(&ADAPTER, &base, BUDGET).capabilities().iter().map(|c| c.channel).collect();
        assert_eq!(channels, [Channel::Sms, Channel::Lms, Channel::Mms]);
        let error = |extra: (&str, &str)| {
            try_build(&ADAPTER, &[&base[..], &[extra]].concat(), BUDGET).err().unwrap().to_string()
        };
        assert!(error(("channels", "SMS+RCS")).contains("cannot serve RCS"));
        assert!(error(("receipt-key", "short")).contains("16 characters"));
        assert!(error(("base-url", "http://api.solapi.com")).contains("must be https"));
        assert!(!error(("base-url", "https://u:SECRET@api.solapi.com")).contains("SECRET"));
        let wrong = [("api-key", "a\nb"), ("api-secret", SECRET), ("from", "029302266")];
        assert!(!try_build(&ADAPTER, &wrong, BUDGET).err().unwrap().to_string().contains('\n'));
        let lms =
            account("https://api.solapi.com", BUDGET).capabilities().into_iter().find(|c| c.channel == Channel::Lms);
        assert_eq!(lms.unwrap().body, Some(2000));
    }
}
