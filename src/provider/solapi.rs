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
use crate::error::{Result, excerpt};
use crate::model::capability::{Batch, Capability};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::model::pace::LimitScope;
use crate::model::phone::{self, KOREA};
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Options};
use super::http::Common;
use super::http::{Answer, Failure};
use super::vendor::{
    self, Codes, Results, Vendor, by_status, from_kst, is_earlier, of_all, proven, rejected, said, together, whose,
    word,
};
use super::window::Window;
use super::{Callback, Looked, Pending, Polled, Provider, Receipts, Refused, SendRequest};

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
/// Results asked for at a time: with all their texts they stay below what is read of an answer.
const PAGE: &str = "100";
/// Of one number's messages so many are asked for at a time, and so often.
const FOUND: &str = "500";
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
    (
        ErrorClass::ProviderInternal,
        &["DuplicatedSignature", "InternalError", "InternalServerError", "ServiceUnavailable"],
    ),
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
        (ErrorClass::HandsetUnreachable, &["3041", "3042", "3043", "3044", "3045", "3046"]),
        (ErrorClass::OutsideHours, &["3108"]),
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
            clock: common.clock.clone(),
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

    fn message(&self, letter: &SendRequest<'_>) -> Result<Value, Outcome> {
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
        let (country, to) = dialled(letter.to);
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

    async fn post(&self, letters: Vec<SendRequest<'_>>, messages: Vec<Value>) -> Vec<Outcome> {
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

    async fn find(&self, letter: SendRequest<'_>) -> Looked {
        let now = self.clock.now().max(letter.created_at);
        let (start, end) = (iso(letter.created_at - TimeDelta::hours(1)), iso(now + TimeDelta::days(1)));
        // As it was sent: with its country before it, none would be found.
        let ((_, to), mut key) = (dialled(letter.to), None::<String>);
        for _ in 0..PAGES {
            let mut query = vec![
                ("to", to.as_str()),
                ("dateType", "CREATED"),
                ("startDate", &start),
                ("endDate", &end),
                ("limit", FOUND),
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

/// A number as it stands in messages, lists and answers: its country, and the digits without it.
fn dialled(number: &str) -> (i32, String) {
    phone::dialled(number).unwrap_or((KOREA, number.to_owned()))
}

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

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
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

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move {
            match self.message(&letter) {
                Ok(message) => self.post(vec![letter], vec![message]).await.pop().unwrap_or_else(unsaid),
                Err(outcome) => outcome,
            }
        })
    }

    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(together(letters, |letter| self.message(letter), |letters, messages| self.post(letters, messages)))
    }

    fn lookup<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Looked> {
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
fn verdicts(letters: &[SendRequest<'_>], answer: &Answer) -> Vec<Outcome> {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        return of_all(by_status(answer), letters);
    };
    if !(200..=299).contains(&answer.status) {
        return of_all(refusal(answer, &body), letters);
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
            *outcome = Some(of_listed(entry));
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
fn rest(letters: &[SendRequest<'_>], outcomes: &mut [Option<Outcome>], stray: &[&Value], successes: Option<u64>) {
    let mut doubtful = 0;
    let mut numbers: Vec<&str> = stray.iter().filter_map(|entry| entry["to"].as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let failed: Vec<&Value> = stray.iter().copied().filter(|entry| entry["to"].as_str() == Some(number)).collect();
        let open = |n: &usize| outcomes.get(*n).is_some_and(Option::is_none);
        let theirs: Vec<usize> = (0..letters.len())
            .filter(open)
            .filter(|n| letters.get(*n).is_some_and(|letter| vendor::is_to(letter, number)))
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

/// The verdict on one message that is listed as taken: a code that nobody knows does not say that it was not.
fn of_listed(entry: &Value) -> Outcome {
    let code = word(&entry["statusCode"]).unwrap_or_default();
    match RESULTS.read(&code) {
        (ReceiptOutcome::Failed, None) if !code.is_empty() && code != DUPLICATE => {
            Outcome::Unknown { code: "answer_unreadable", detail: excerpt(&format!("listed with the status {code}")) }
        }
        _ => of_code(entry),
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

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::super::simulator::testing::{BUDGET, SHORT, content, letter, rejected, unknown};
    use super::super::vendor::testing::{Answers, made, made_with, try_made};
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
        made(&ADAPTER, &options, budget)
    }

    fn of<'a>(channel: Channel, to: &'a str, content: &'a Content) -> SendRequest<'a> {
        SendRequest { channel, ..letter(to, content) }
    }

    fn template(body: &str) -> Content {
        Content { template_code: Some("KA01TP".to_owned()), ..content(None, body) }
    }

    /// What the vendor's own clients sent to a server that kept it: `tests/fixtures/solapi`.
    fn recorded(name: &str) -> Vec<Value> {
        let file = format!("{}/tests/fixtures/solapi/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    /// Theirs without what is their own: who they are, and what the type that is given makes needless. What Python's says of
    /// the country and Node's leaves to the vendor we say.
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
            let api = Answers::with(&vec![(200, "{}"); theirs.len()]).await;
            let solapi = account(&api.url, BUDGET);
            let letters: Vec<SendRequest<'_>> =
                channels.iter().zip(&contents).map(|(channel, content)| of(*channel, NUMBER, content)).collect();
            for letter in letters.iter().take(single) {
                solapi.send(letter.clone()).await;
            }
            solapi.send_batch(letters).await;
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

    /// The signature is theirs: from their date and salt ours comes out the same. Each request has its own.
    #[tokio::test]
    async fn signatures_are_those_of_the_vendors_own_clients() {
        let mut tried = 0;
        for request in ["node-6.0.1", "python-5.0.3"].into_iter().flat_map(recorded) {
            let theirs = parts(request["headers"]["authorization"].as_str().unwrap());
            let ours = parts(&authorization(KEY, SECRET, &theirs[1].1, &theirs[2].1));
            assert_eq!(ours, theirs);
            tried += 1;
        }
        assert!(tried >= 10);
        let api = Answers::with(&[(200, "{}"), (200, "{}")]).await;
        let (solapi, content) = (account(&api.url, BUDGET), content(None, "x"));
        for _ in 0..2 {
            solapi.send(letter(NUMBER, &content)).await;
        }
        let [first, second] = [0, 1].map(|n| parts(api.requests()[n].header("authorization").unwrap()));
        assert_ne!((&first[2], &first[3]), (&second[2], &second[3]), "a signature is taken once");
        assert!((12..=64).contains(&first[2].1.len()));
    }

    /// By the hub's clock, not by the host's: with one that is off the vendor would take nothing, and a look-up would end
    /// before what it looks for.
    #[tokio::test]
    async fn the_hubs_clock_signs_and_looks() {
        let api = Answers::with(&[(200, "{}"), (503, "")]).await;
        let clock = Clock::manual(DateTime::from_timestamp(1_900_000_000, 0).unwrap());
        let options = [("api-key", KEY), ("api-secret", SECRET), ("from", "029302266"), ("base-url", &api.url)];
        let solapi = made_with(&ADAPTER, &options, Common { clock, ..Common::within(BUDGET) }).unwrap();
        let content = content(None, "x");
        solapi.send(letter(NUMBER, &content)).await;
        solapi.lookup(letter(NUMBER, &content)).await;
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
            let letter = letter(to, content);
            SendRequest { key: DeliveryKey { no: i16::try_from(n).unwrap() + 1, ..letter.key }, ..letter }
        };
        numbers.iter().enumerate().map(one).collect()
    }

    fn read(letters: &[SendRequest<'_>], body: String) -> Vec<Outcome> {
        verdicts(letters, &Answer { status: 200, body: body.into_bytes(), retry_after: None })
    }

    /// A 200 is not acceptance: each letter has its own verdict, also two to one number.
    #[test]
    fn each_letter_has_its_verdict() {
        let content = content(None, "x");
        let letters = numbered(&[NUMBER, "+821011112222", NUMBER], &content);
        let field = |n: usize| json!({ FIELD: letters[n].reference().to_string() });
        let failed = json!([{ "to": "01012345678", "statusCode": "1062", "messageId": "M3", "customFields": field(2),
            "statusMessage": "발신번호 미등록" }]);
        // In another order than asked, with the failed one in both lists.
        let messages = json!([
            { "messageId": "M3", "statusCode": "1062", "customFields": field(2) },
            { "messageId": "M2", "statusCode": "2000", "customFields": field(1) },
            { "messageId": "M1", "statusCode": "2000", "customFields": field(0) },
        ]);
        let outcomes = read(&letters, group(2, &failed, &messages));
        assert_eq!(outcomes[0], Outcome::Accepted { provider_ref: Some("M1".to_owned()) });
        assert_eq!(outcomes[1], Outcome::Accepted { provider_ref: Some("M2".to_owned()) });
        assert_eq!(rejected(outcomes[2].clone()), (ErrorClass::Sender, "1062".to_owned()));
    }

    /// An answer that repeats no reference: what goes to one number alone is known by it; of two to the same number, of which
    /// one failed, neither is called failed or taken.
    #[test]
    fn who_is_meant_is_never_guessed() {
        let content = content(None, "x");
        let letters = numbered(&[NUMBER, NUMBER, "+821011112222", "+821033334444"], &content);
        let entry = |to: &str| json!({ "to": to, "statusCode": "3010", "messageId": "M" });
        let accepted = Outcome::Accepted { provider_ref: None };
        let none = json!([]);

        let outcomes = read(&letters, group(2, &json!([entry("01012345678"), entry("01011112222")]), &none));
        assert_eq!(unknown(outcomes[0].clone()), "answer_incomplete");
        assert_eq!(unknown(outcomes[1].clone()), "answer_incomplete");
        assert_eq!(rejected(outcomes[2].clone()).0, ErrorClass::Address);
        assert_eq!(outcomes[3], accepted);

        let both = json!([entry("01012345678"), entry("01012345678")]);
        let outcomes = read(&letters, group(2, &both, &none));
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
            for outcome in read(&letters, group(success, &none, &none)) {
                assert_eq!(outcome == accepted, said, "{success}: the sum must fit");
                assert_eq!(matches!(outcome, Outcome::Unknown { .. }), !said);
            }
        }
        for outcome in read(&letters, "{}".to_owned()) {
            assert_eq!(unknown(outcome), "answer_incomplete");
        }
    }

    #[tokio::test]
    async fn the_vendors_words_decide_about_a_request() {
        let error = |status: u16, word: &str| (status, json!({ "errorCode": word, "errorMessage": "왜" }).to_string());
        let api = Answers::with(&[
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
        let send = || solapi.send(letter(NUMBER, &content));
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
        for (api, code) in [(Answers::cutting().await, "answer_cut"), (Answers::silent().await, "no_answer")] {
            let letters = numbered(&[NUMBER, NUMBER], &content);
            for outcome in account(&api.url, SHORT).send_batch(letters).await {
                assert_eq!(unknown(outcome), code);
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_go_does_not_keep_the_others() {
        let api = Answers::with(&[(200, group(1, &json!([]), &json!([])))]).await;
        let (with, without) = (template("x"), content(None, "x"));
        let letters =
            vec![of(Channel::KakaoAlimtalk, NUMBER, &without), of(Channel::KakaoAlimtalk, "+821011112222", &with)];
        let outcomes = account(&api.url, BUDGET).send_batch(letters).await;
        assert_eq!(rejected(outcomes[0].clone()), (ErrorClass::Template, "template_missing".to_owned()));
        assert_eq!(outcomes[1], Outcome::Accepted { provider_ref: None });
        assert_eq!(api.requests()[0].body["messages"].as_array().unwrap().len(), 1);
    }

    fn told(solapi: &Arc<dyn Provider>, query: &str, body: &[u8]) -> Result<Receipts, Refused> {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        solapi.receipts(&Callback { headers: &HeaderMap::new(), query, body, now })
    }

    /// S0-40, S0-42, S0-43: what the vendor reports is read by its codes; one that cannot be read loses no other.
    #[test]
    fn receipts_are_read() {
        let solapi = account("https://api.solapi.com", BUDGET);
        let content = content(None, "x");
        let ours = letter(NUMBER, &content).reference();
        let report = |code: &str| {
            json!({ "eventDataId": "E1", "retryCount": 0, "data": { "messageId": "M1", "statusCode": code,
                "statusMessage": "말", "dateReceived": "2027-01-15T17:00:00.000+09:00",
                "customFields": { FIELD: ours.to_string() } } })
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
    fn who_does_not_show_the_key_is_no_caller() {
        let solapi = account("https://api.solapi.com", BUDGET);
        for query in ["", "key=", "key=0123456789abcde", "key=0123456789abcdeF", "Key=0123456789abcdef", "key"] {
            assert!(matches!(told(&solapi, query, b"[]"), Err(Refused::Forged(_))), "{query}");
        }
        let query = format!("key={RECEIPT_KEY}");
        for body in [&b""[..], b"{}", b"null", b"\xff", b"[1"] {
            assert!(matches!(told(&solapi, &query, body), Err(Refused::Unreadable(_))));
        }
        let options = [("api-key", KEY), ("api-secret", SECRET), ("from", "029302266")];
        assert_eq!(told(&made(&ADAPTER, &options, BUDGET), &query, b"[]"), Err(Refused::NotExpected));
    }

    fn page(rows: &Value, next: Option<&str>) -> (u16, String) {
        (200, json!({ "limit": 500, "nextKey": next, "messageList": rows }).to_string())
    }

    #[tokio::test]
    async fn what_may_have_been_taken_is_looked_up() {
        let content = content(None, "x");
        let present = SendRequest { attempt: 3, ..letter(NUMBER, &content) };
        let row = |letter: &SendRequest<'_>, code: &str| json!({ "statusCode": code, "customFields": { FIELD: letter.reference().to_string() } });
        let before = SendRequest { attempt: 2, ..present.clone() };
        let another = SendRequest { key: DeliveryKey { no: 9, ..before.key }, ..before.clone() };
        let api = Answers::with(&[
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
        assert_eq!(looked, Looked::Taken { provider_ref: Some("M1".to_owned()) });
        assert_eq!(
            solapi.lookup(present.clone()).await,
            Looked::NotTaken,
            "others', its own, and one refused at intake"
        );
        assert_eq!(solapi.lookup(present.clone()).await, Looked::CannotTell);
        assert_eq!(solapi.lookup(present).await, Looked::CannotTell);
        let asked = api.requests();
        assert!(
            asked[0].line.starts_with("GET /messages/v4/list?to=01012345678&dateType=CREATED&"),
            "{}",
            asked[0].line
        );
        assert!(asked[1].line.ends_with("&startKey=next"), "{}", asked[1].line);
    }

    /// A number abroad is looked for as it was sent, or what was taken would be sent again.
    #[tokio::test]
    async fn a_number_abroad_is_looked_for_as_it_was_sent() {
        let content = content(None, "x");
        let api = Answers::with(&[(200, group(1, &json!([]), &json!([]))), page(&json!({}), None)]).await;
        let (solapi, abroad) = (account(&api.url, BUDGET), letter("+12025550123", &content));
        solapi.send(abroad.clone()).await;
        assert_eq!(solapi.lookup(SendRequest { attempt: 2, ..abroad }).await, Looked::NotTaken);
        let asked = api.requests();
        let message = &asked[0].body["messages"][0];
        assert_eq!((&message["to"], &message["country"]), (&json!("2025550123"), &json!("1")));
        assert!(asked[1].line.starts_with("GET /messages/v4/list?to=2025550123&"), "{}", asked[1].line);
    }

    /// What no webhook brought is found in the list, page by page; what is not ours, or not final, is passed by.
    #[tokio::test]
    async fn results_are_polled() {
        let content = content(None, "x");
        let ours = json!({ FIELD: letter(NUMBER, &content).reference().to_string() });
        let rows = json!({
            "M1": { "messageId": "M1", "statusCode": "4000", "customFields": ours },
            "M2": { "messageId": "M2", "statusCode": "4000", "customFields": {} },
            "M3": { "messageId": "M3", "statusCode": "3000", "customFields": ours },
            "M4": { "messageId": "M4", "customFields": ours },
        });
        let api = Answers::with(&[page(&rows, Some("k 1")), page(&json!({}), None), (500, String::new())]).await;
        let (solapi, now) = (account(&api.url, BUDGET), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let first = solapi.poll(None, now).unwrap().await.unwrap();
        let keys: Vec<Option<&str>> =
            first.receipts.iter().map(|r| r.as_ref().ok().map(|r| r.event_key.as_str())).collect();
        assert_eq!((keys, first.more), (vec![Some("M1:4000"), None], true));
        let second = solapi.poll(Some(&first.cursor), now).unwrap().await.unwrap();
        assert_eq!((second.receipts.len(), second.more), (0, false));
        assert!(api.requests()[1].line.ends_with("&startKey=k+1"));
        let failed = solapi.poll(Some(&second.cursor), now).unwrap().await.unwrap_err();
        assert!(failed.contains("500") && !failed.contains(SECRET), "{failed}");
    }

    #[test]
    fn channels_are_those_that_the_options_allow() {
        let base = [("api-key", KEY), ("api-secret", SECRET), ("from", "029302266")];
        let channels: Vec<Channel> = made(&ADAPTER, &base, BUDGET).capabilities().iter().map(|c| c.channel).collect();
        assert_eq!(channels, [Channel::Sms, Channel::Lms, Channel::Mms]);
        let error = |extra: (&str, &str)| {
            try_made(&ADAPTER, &[&base[..], &[extra]].concat(), BUDGET).err().unwrap().to_string()
        };
        assert!(error(("channels", "SMS+RCS")).contains("cannot serve RCS"));
        assert!(error(("receipt-key", "short")).contains("16 characters"));
        assert!(error(("base-url", "http://api.solapi.com")).contains("must be https"));
        assert!(!error(("base-url", "https://u:SECRET@api.solapi.com")).contains("SECRET"));
        let wrong = [("api-key", "a\nb"), ("api-secret", SECRET), ("from", "029302266")];
        assert!(!try_made(&ADAPTER, &wrong, BUDGET).err().unwrap().to_string().contains('\n'));
        let lms =
            account("https://api.solapi.com", BUDGET).capabilities().into_iter().find(|c| c.channel == Channel::Lms);
        assert_eq!(lms.unwrap().body, Some(2000));
    }
}
