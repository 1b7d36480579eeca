//! Solapi v4: SMS, LMS, MMS, AlimTalk, brand messages and RCS through one door.
//!
//! Every request is signed anew (HMAC-SHA256 over its date and a random salt), for a signature is taken once. A 200 is not
//! acceptance: each message has its own verdict in the answer. Solapi keeps no key to tell a repetition by, but repeats what
//! stands in `customFields`, in answers, lists and receipts: there goes our reference. Its own fallback to SMS is off.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use data_encoding::HEXLOWER;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::crypt;
use crate::error::Result;
use crate::model::capability::{Batch, Capability};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::model::phone::{self, KOREA};
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Common, Options};
use super::http::{Answer, Failure};
use super::vendor::{
    self, Codes, Results, Vendor, by_status, from_kst, is_earlier, of_all, proven, rejected, said, together, whose,
    word,
};
use super::window::Window;
use super::{Callback, Letter, Looked, Pending, Polled, Provider, Receipts, Refused};

pub const ADAPTER: Adapter = Adapter {
    name: "solapi",
    about: "Solapi (CoolSMS) v4: SMS, LMS, MMS, AlimTalk, brand messages, RCS",
    options: &[
        ("api-key", "of the account; needed"),
        ("api-secret", "of the account; needed"),
        ("from", "the sender's number, registered at Solapi; needed"),
        ("pf-id", "the KakaoTalk channel; needed for KAKAO_ALIMTALK and KAKAO_BRAND_MESSAGE"),
        ("rcs-brand-id", "the RCS brand; needed for RCS"),
        ("receipt-key", "what stands after ?key= in the webhook's URL at Solapi; without it no webhook is taken"),
        ("base-url", "where it is (https://api.solapi.com)"),
        ("channels", "all that the options above allow, or fewer: SMS+LMS+…"),
    ],
    make: |options, common| Ok(Arc::new(Solapi::new(options, common)?)),
};

const SEND: &str = "/messages/v4/send-many/detail";
const LIST: &str = "/messages/v4/list";
/// It takes 10,000; a smaller request loses less when its answer is lost.
const BATCH: usize = 1000;
/// The key of `customFields`.
const FIELD: &str = "notihub";
const PAGE: &str = "500";
/// Pages of one number's messages that are looked through.
const PAGES: usize = 5;
/// The vendor tells a little later what it gave up after 25 hours, 80 hours and 3 days.
const HOUR: u64 = 3600;

/// The words of an error that is about the whole request.
const WORDS: Codes = Codes(&[
    // A clock that is off is for a person to set right, as is a wrong key.
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
    // Signed anew it may pass.
    (ErrorClass::ProviderInternal, &["DuplicatedSignature", "InternalServerError", "ServiceUnavailable"]),
    (ErrorClass::Content, &["BadRequest", "ValidationError", "InvalidParameter"]),
]);

/// A repetition of a number in one request; taken or not, an earlier one was.
const DUPLICATE: &str = "1026";

const RESULTS: Results = Results {
    delivered: &["4000"],
    pending: &["2000", "3000", DUPLICATE],
    expired: &["3040"],
    failed: Codes(&[
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
        (ErrorClass::Handset, &["3041", "3042", "3043", "3044", "3045", "3046"]),
        (ErrorClass::Hours, &["3108"]),
    ]),
};

struct Solapi {
    name: String,
    vendor: Vendor,
    clock: Clock,
    key: String,
    secret: String,
    from: String,
    pf_id: Option<String>,
    brand_id: Option<String>,
    receipt_key: Option<String>,
    channels: Vec<Channel>,
}

impl Solapi {
    fn new(options: &mut Options, common: &Common) -> Result<Solapi> {
        let (key, secret) = (options.require("api-key")?, options.require("api-secret")?);
        // Found now, not with each message.
        vendor::secret_header(options, "api-key", AUTHORIZATION, &key)?;
        let (pf_id, brand_id) = (options.text("pf-id"), options.text("rcs-brand-id"));
        let mut able = vec![Channel::Sms, Channel::Lms, Channel::Mms];
        able.extend(pf_id.iter().flat_map(|_| [Channel::KakaoAlimtalk, Channel::KakaoBrandMessage]));
        able.extend(brand_id.iter().map(|_| Channel::Rcs));
        Ok(Solapi {
            name: options.name().to_owned(),
            clock: Clock::system(),
            key,
            secret,
            from: vendor::sender(options, "from")?,
            pf_id,
            brand_id,
            receipt_key: vendor::receipt_secret(options, "receipt-key")?,
            channels: options.channels_of(&able, &able)?,
            vendor: Vendor::at(options, "https://api.solapi.com", common)?,
        })
    }

    fn headers(&self) -> HeaderMap {
        let date = self.clock.now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let salt = HEXLOWER.encode(&crypt::random());
        // Its parts are visible ASCII: the key was tried when the account was made.
        let value = authorization(&self.key, &self.secret, &date, &salt);
        let value = HeaderValue::from_str(&value).map(|mut value| {
            value.set_sensitive(true);
            (AUTHORIZATION, value)
        });
        HeaderMap::from_iter(value)
    }

    fn message(&self, letter: &Letter<'_>) -> Result<Value, Outcome> {
        let content = letter.content;
        let chars = content.body.chars().count();
        let kind = match letter.channel {
            Channel::Sms => "SMS",
            // Without a picture an MMS is an LMS to every carrier, and ours have none yet.
            Channel::Lms | Channel::Mms => "LMS",
            Channel::KakaoAlimtalk => "ATA",
            Channel::KakaoBrandMessage => "BMS_FREE",
            Channel::Rcs if chars <= RCS_SHORT_CHARS => "RCS_SMS",
            Channel::Rcs => "RCS_LMS",
            other => return Err(rejected(ErrorClass::Sender, "channel_not_served", format!("Solapi has no {other}"))),
        };
        let (country, to) = phone::dialled(letter.to).unwrap_or((KOREA, letter.to.to_owned()));
        let mut message = json!({
            "to": to, "from": self.from, "country": country.to_string(), "type": kind, "text": content.body,
            "customFields": { FIELD: letter.reference().to_string() },
        });
        match letter.channel {
            Channel::KakaoAlimtalk => {
                let Some(template) = &content.template_code else { return Err(no_template()) };
                message["kakaoOptions"] = json!({ "pfId": self.pf_id, "templateId": template, "disableSms": true });
            }
            Channel::KakaoBrandMessage => {
                let bubble = json!({ "targeting": "I", "chatBubbleType": "TEXT" });
                message["kakaoOptions"] = json!({ "pfId": self.pf_id, "disableSms": true, "bms": bubble });
            }
            Channel::Rcs => message["rcsOptions"] = json!({ "brandId": self.brand_id, "disableSms": true }),
            _ => (),
        }
        if let (Some(subject), "LMS" | "RCS_LMS") = (&content.subject, kind) {
            message["subject"] = Value::from(subject.as_str());
        }
        Ok(message)
    }

    async fn post(&self, letters: Vec<Letter<'_>>, messages: Vec<Value>) -> Vec<Outcome> {
        let body = json!({
            "messages": messages,
            // Two of ours to one number are two deliveries: neither is a repetition.
            "allowDuplicates": true,
            "showMessageList": true,
        });
        match self.vendor.post(SEND, &body, self.headers(), letters.len()).await {
            Ok(answer) => verdicts(&letters, &answer),
            Err(failure) => vec![failure.into_outcome(); letters.len()],
        }
    }

    async fn list(&self, query: &[(&str, &str)]) -> Result<Value, String> {
        let answer =
            self.vendor.get(LIST, query, self.headers()).await.map_err(|failure: Failure| failure.to_string())?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status {
            200..=299 if body["messageList"].is_object() => Ok(body),
            status => Err(format!("answered {status} {}", said(&body["errorCode"]))),
        }
    }

    async fn find(&self, letter: Letter<'_>) -> Looked {
        let now = self.clock.now().max(letter.created_at);
        let (start, end) = (iso(letter.created_at - TimeDelta::hours(1)), iso(now + TimeDelta::days(1)));
        let (to, mut key) = (vendor::digits(letter.to), None::<String>);
        for _ in 0..PAGES {
            let mut query = vec![
                ("to", to.as_str()),
                ("dateType", "CREATED"),
                ("startDate", &start),
                ("endDate", &end),
                ("limit", PAGE),
            ];
            query.extend(key.as_deref().map(|key| ("startKey", key)));
            let Ok(body) = self.list(&query).await else { return Looked::CannotTell };
            // What was refused at intake is listed, too, but was not taken.
            let taken = |row: &Value| {
                let refused = word(&row["statusCode"]).is_some_and(|code| code.starts_with('1') && code != DUPLICATE);
                !refused && row["customFields"][FIELD].as_str().is_some_and(|text| is_earlier(text, &letter))
            };
            let rows = body["messageList"].as_object();
            if let Some((id, _)) = rows.into_iter().flatten().find(|(_, row)| taken(row)) {
                return Looked::Taken { provider_ref: Some(id.clone()) };
            }
            key = word(&body["nextKey"]);
            if key.is_none() {
                return Looked::NotTaken;
            }
        }
        Looked::CannotTell
    }

    async fn results(&self, cursor: Option<&str>, now: DateTime<Utc>) -> Result<Polled, String> {
        let window = Window::open(cursor, now);
        let (start, end) = (iso(window.from), iso(window.until));
        let mut query =
            vec![("dateType", "UPDATED"), ("startDate", start.as_str()), ("endDate", &end), ("limit", PAGE)];
        query.extend(window.place.as_deref().map(|key| ("startKey", key)));
        let body = self.list(&query).await?;
        let rows = body["messageList"].as_object().into_iter().flatten();
        // The account may be others', too; and what is under way is no news.
        let ours = rows.filter(|(_, row)| row["customFields"][FIELD].is_string()).map(|(_, row)| receipt(row));
        let news = |read: &Result<Receipt, String>| read.as_ref().is_ok_and(|r| r.outcome != ReceiptOutcome::Accepted);
        let receipts = ours.filter(|read| read.is_err() || news(read)).collect();
        let (cursor, more) = window.next(word(&body["nextKey"]).as_deref(), now);
        Ok(Polled { receipts, cursor, more })
    }
}

/// What fits into one RCS message of the short kind.
const RCS_SHORT_CHARS: usize = 100;

fn no_template() -> Outcome {
    rejected(ErrorClass::Template, "template_missing", "an AlimTalk names its approved template: templateCode")
}

fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn authorization(key: &str, secret: &str, date: &str, salt: &str) -> String {
    let signature = HEXLOWER.encode(&crypt::keyed_hash(secret.as_bytes(), format!("{date}{salt}").as_bytes()));
    format!("HMAC-SHA256 apiKey={key}, date={date}, salt={salt}, signature={signature}")
}

impl Provider for Solapi {
    fn name(&self) -> &str {
        &self.name
    }

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
                batch: Batch::Any(BATCH),
                on_unknown: OnUnknown::Lookup,
                receipt_within: Some(Duration::from_secs(hours * HOUR)),
                ..Capability::of(*channel)
            }
        };
        self.channels.iter().map(capability).collect()
    }

    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move {
            match self.message(&letter) {
                Ok(message) => self.post(vec![letter], vec![message]).await.pop().unwrap_or_else(unsaid),
                Err(outcome) => outcome,
            }
        })
    }

    fn send_batch<'a>(&'a self, letters: Vec<Letter<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(together(letters, |letter| self.message(letter), |letters, messages| self.post(letters, messages)))
    }

    fn lookup<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Looked> {
        Box::pin(self.find(letter))
    }

    /// An array, whose caller shows the key in the URL: Solapi signs nothing.
    fn receipts(&self, callback: &Callback<'_>) -> Result<Receipts, Refused> {
        let shown = form_urlencoded::parse(callback.query.as_bytes()).find(|(name, _)| name == "key");
        proven(self.receipt_key.as_deref(), shown.as_ref().map(|(_, value)| value.as_bytes()))?;
        let unreadable = |_| Refused::Unreadable("the body is not an array of JSON".to_owned());
        let reports: Vec<Value> = serde_json::from_slice(callback.body).map_err(unreadable)?;
        // A group's report tells sums, of no message.
        let of_messages = reports.iter().filter(|report| !report["data"]["count"].is_object());
        Ok(of_messages.map(|report| receipt(&report["data"])).collect())
    }

    fn poll<'a>(&'a self, cursor: Option<&'a str>, now: DateTime<Utc>) -> Option<Pending<'a, Result<Polled, String>>> {
        Some(Box::pin(self.results(cursor, now)))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.vendor.check())
    }
}

fn unsaid() -> Outcome {
    Outcome::Unknown { code: "answer_incomplete", detail: "the answer says nothing of it".to_owned() }
}

/// A message as webhooks and lists tell of it. The key is the same in both, so that news that came both ways is one.
fn receipt(data: &Value) -> Result<Receipt, String> {
    let id = word(&data["messageId"]).ok_or("it has no messageId")?;
    let code = word(&data["statusCode"]).ok_or_else(|| format!("{id} has no statusCode"))?;
    let (outcome, class) = RESULTS.read(&code);
    let at = ["dateReceived", "dateReported", "dateProcessed"].iter().find_map(|name| from_kst(data[name].as_str()?));
    Ok(Receipt {
        event_key: format!("{id}:{code}"),
        reference: data["customFields"][FIELD].as_str().and_then(|text| text.parse().ok()),
        provider_ref: Some(id),
        outcome,
        class,
        code: Some(code),
        detail: Some(said(&data["statusMessage"])).filter(|text| !text.is_empty()),
        occurred_at: at,
    })
}

/// What the answer says of each letter.
fn verdicts(letters: &[Letter<'_>], answer: &Answer) -> Vec<Outcome> {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        return of_all(by_status(answer), letters.len());
    };
    if !(200..=299).contains(&answer.status) {
        return of_all(refusal(answer, &body), letters.len());
    }
    let mut outcomes: Vec<Option<Outcome>> = vec![None; letters.len()];
    let mut stray = Vec::new();
    for entry in list(&body, "failedMessageList") {
        let (reference, to) = (entry["customFields"][FIELD].as_str(), entry["to"].as_str());
        match whose(letters, reference, to).and_then(|n| outcomes.get_mut(n)) {
            Some(outcome) => *outcome = Some(of_code(entry)),
            None => stray.push(entry),
        }
    }
    for entry in list(&body, "messageList") {
        let alone = if letters.len() == 1 { Some(0) } else { None };
        let found = whose(letters, entry["customFields"][FIELD].as_str(), None).or(alone);
        if let Some(outcome @ None) = found.and_then(|n| outcomes.get_mut(n)) {
            *outcome = Some(of_code(entry));
        }
    }
    rest(letters, &mut outcomes, &stray, body["groupInfo"]["count"]["registeredSuccess"].as_u64());
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unsaid)).collect()
}

fn list<'a>(body: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    body[name].as_array().into_iter().flatten()
}

/// Letters that no piece of the answer names. They were taken if the sum says so. Of several to one number of which some
/// failed, nobody knows which: that is unknown, and to be looked up.
fn rest(letters: &[Letter<'_>], outcomes: &mut [Option<Outcome>], stray: &[&Value], successes: Option<u64>) {
    let mut doubtful = 0;
    let mut numbers: Vec<&str> = stray.iter().filter_map(|entry| entry["to"].as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let failed: Vec<&Value> = stray.iter().copied().filter(|entry| entry["to"].as_str() == Some(number)).collect();
        let open = |n: &usize| outcomes.get(*n).is_some_and(Option::is_none);
        let theirs: Vec<usize> = (0..letters.len())
            .filter(open)
            .filter(|n| letters.get(*n).is_some_and(|letter| vendor::digits(letter.to) == number))
            .collect();
        let all = theirs.len() == failed.len();
        doubtful += if all { 0 } else { theirs.len().saturating_sub(failed.len()) };
        for (n, entry) in theirs.iter().zip(failed.iter().cycle()) {
            let Some(outcome) = outcomes.get_mut(*n) else { continue };
            *outcome = Some(if all { of_code(entry) } else { unsaid() });
        }
    }
    let taken = outcomes.iter().filter(|o| matches!(o, Some(Outcome::Accepted { .. }))).count();
    let open = outcomes.iter().filter(|o| o.is_none()).count();
    if successes == u64::try_from(taken + open + doubtful).ok() {
        for outcome in outcomes.iter_mut().filter(|o| o.is_none()) {
            *outcome = Some(Outcome::Accepted { provider_ref: None });
        }
    }
}

/// The verdict on one message.
fn of_code(entry: &Value) -> Outcome {
    let Some(code) = word(&entry["statusCode"]) else { return unsaid() };
    if code == DUPLICATE {
        return Outcome::Unknown { code: "told_duplicate", detail: said(&entry["statusMessage"]) };
    }
    match RESULTS.read(&code) {
        (ReceiptOutcome::Accepted | ReceiptOutcome::Delivered, _) => {
            Outcome::Accepted { provider_ref: word(&entry["messageId"]) }
        }
        // Of a code nobody knows: it was refused, and would be again.
        (_, class) => rejected(class.unwrap_or(ErrorClass::Content), code, said(&entry["statusMessage"])),
    }
}

/// `{"errorCode": …, "errorMessage": …}`: nothing of the request was taken.
fn refusal(answer: &Answer, body: &Value) -> Outcome {
    let outcome = by_status(answer);
    let Some(code) = word(&body["errorCode"]) else { return outcome };
    let detail = said(&body["errorMessage"]);
    let class = match (WORDS.class(&code), &outcome) {
        (Some(class), _) => class,
        (None, Outcome::Rejected { class, .. }) => *class,
        (None, _) => return outcome,
    };
    Outcome::Rejected { class, code, detail, retry_after: answer.retry_after }
}
