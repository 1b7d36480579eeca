//! What NHN Cloud's messaging APIs share: the header that says whether a request was taken, a verdict for each recipient in
//! it, webhooks that show a fixed text, and lists of results by time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::clock::Clock;
use crate::error::Result;
use crate::model::delivery::Outcome;
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::Options;
use super::http::Common;
use super::http::{Answer, Failure};
use super::vendor::{self, Codes, Results, Vendor, by_status, from_kst, of_all, proven, rejected, said, whose, word};
use super::window::Window;
use super::{Callback, Looked, Polled, Receipts, Refused, SendRequest};

/// The most recipients of one request.
pub const BATCH: usize = 1000;
/// Results asked for at a time: with all their texts they stay below what is read of an answer.
pub const PAGE: usize = 100;
/// The most of one number's messages that a look-up goes through.
pub const FOUND: usize = 500;
/// What can be asked for at once.
const MONTH: TimeDelta = TimeDelta::days(29);
const SIGNATURE: &str = "x-toast-webhook-signature";
const HOUR: u64 = 3600;

/// One service of one project.
pub struct Nhn {
    pub name: String,
    pub vendor: Vendor,
    pub clock: Clock,
    /// What stands in the path, or in a header.
    pub app_key: String,
    secret: (HeaderName, HeaderValue),
    webhook_signature: Option<String>,
}

impl Nhn {
    pub fn new(options: &mut Options, default: &str, common: &Common) -> Result<Nhn> {
        let (app_key, secret) = (options.require("app-key")?, options.require("secret-key")?);
        if app_key.is_empty() || !app_key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(options.wrong("the option app-key has other characters than letters, digits, - and _"));
        }
        Ok(Nhn {
            name: options.name().to_owned(),
            clock: common.clock.clone(),
            app_key,
            secret: vendor::secret_header(options, "secret-key", HeaderName::from_static("x-secret-key"), &secret)?,
            webhook_signature: None,
            vendor: Vendor::at(options, default, common)?,
        })
    }

    /// Of a service that calls back.
    pub fn with_webhooks(self, options: &mut Options) -> Result<Nhn> {
        Ok(Nhn { webhook_signature: vendor::receipt_secret(options, "webhook-signature")?, ..self })
    }

    pub fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([self.secret.clone()])
    }

    /// A list; why not, if not.
    pub async fn list(&self, path: &str, query: &[(&str, &str)], headers: HeaderMap) -> Result<Value, String> {
        let answer = self.vendor.get(path, query, headers).await.map_err(|failure: Failure| failure.to_string())?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if (200..=299).contains(&answer.status) && body["header"]["isSuccessful"] == true {
            return Ok(body);
        }
        let header = &body["header"];
        let code = word(&header["resultCode"]).unwrap_or_default();
        Err(format!("answered {} {code} {}", answer.status, said(&header["resultMessage"])))
    }

    /// The results that were updated in the next window. `rows`: where they stand in the answer.
    pub async fn results(&self, list: &List<'_>, cursor: Option<&str>, now: DateTime<Utc>) -> Result<Polled, String> {
        let window = Window::open(cursor, now);
        let (start, end) = (vendor::to_kst(window.from, list.format), vendor::to_kst(window.until, list.format));
        let page: usize = window.place.as_deref().and_then(|place| place.parse().ok()).unwrap_or(1);
        let (number, size) = (page.to_string(), PAGE.to_string());
        let query =
            [("startUpdateDate", start.as_str()), ("endUpdateDate", &end), ("pageNum", &number), ("pageSize", &size)];
        let body = self.list(&list.path, &query, self.headers()).await?;
        let rows = list.rows(&body).ok_or("its list has no rows")?;
        let receipts = rows.iter().filter(|row| list.is_news(row)).map(|row| receipt(row, list.results)).collect();
        let next = if rows.len() >= PAGE { Some((page + 1).to_string()) } else { None };
        let (cursor, more) = window.next(next.as_deref(), now);
        Ok(Polled { receipts, cursor, more })
    }

    /// An earlier attempt of a letter, among all that was sent to its number (`to`, as it is sent) since its message was made.
    pub async fn find(&self, list: &Sent<'_>, to: &str, letter: &SendRequest<'_>) -> Looked {
        let end = self.clock.now().max(letter.created_at) + TimeDelta::hours(1);
        let start = (letter.created_at - TimeDelta::hours(1)).max(end - MONTH);
        let (start, end) = (vendor::to_kst(start, list.format), vendor::to_kst(end, list.format));
        let size = FOUND.to_string();
        let query =
            [("startRequestDate", start.as_str()), ("endRequestDate", &end), ("recipientNo", to), ("pageSize", &size)];
        let listed = self.list(&list.path, &query, self.headers()).await;
        let Some(rows) = listed.ok().and_then(|body| body.pointer(list.place)?.as_array().cloned()) else {
            return Looked::CannotTell;
        };
        let earlier = |row: &&Value| grouping_key(row).is_some_and(|key| vendor::is_earlier(key, letter));
        match rows.iter().find(earlier).map(reference) {
            Some(provider_ref) => Looked::Taken { provider_ref },
            None if rows.len() < FOUND => Looked::NotTaken,
            None => Looked::CannotTell,
        }
    }

    /// What a webhook brings: hooks of any event, of which those that name a request tell of a message.
    pub fn hooks(&self, callback: &Callback<'_>, results: &Results) -> Result<Receipts, Refused> {
        let shown = callback.headers.get(SIGNATURE).map(HeaderValue::as_bytes);
        proven(self.webhook_signature.as_deref(), shown)?;
        let unreadable = || Refused::Unreadable("the body is not a JSON object with hooks".to_owned());
        let body: Value = serde_json::from_slice(callback.body).map_err(|_| unreadable())?;
        let hooks = body["hooks"].as_array().ok_or_else(unreadable)?;
        // Opt-outs and templates have their hooks, too.
        let is_other = |hook: &&Value| hook["unsubscribeNo"].is_string() || hook["kakaoTemplateCode"].is_string();
        Ok(hooks.iter().filter(|hook| !is_other(hook)).map(|hook| receipt(hook, results)).collect())
    }
}

/// Where a service lists what was sent.
pub struct Sent<'a> {
    pub path: String,
    pub format: &'a str,
    /// A JSON pointer to where the rows stand.
    pub place: &'a str,
}

/// Where a service lists the results that were updated in a time.
pub struct List<'a> {
    pub path: String,
    pub format: &'static str,
    /// JSON pointers to where the rows may stand.
    pub places: &'static [&'static str],
    pub results: &'a Results,
    /// Its rows repeat our reference: one without is somebody else's.
    pub with_reference: bool,
}

impl List<'_> {
    /// None is not the same as no rows: whoever took it for that would pass by what was not read.
    fn rows<'v>(&self, body: &'v Value) -> Option<&'v Vec<Value>> {
        self.places.iter().find_map(|place| body.pointer(place)?.as_array())
    }

    /// Something final, of one of ours.
    fn is_news(&self, row: &Value) -> bool {
        let ours = !self.with_reference || grouping_key(row).is_some_and(|key| key.starts_with("nh-"));
        let code = word(&row["resultCode"]);
        ours && code.is_some_and(|code| self.results.read(&code).0 != ReceiptOutcome::Accepted)
    }
}

pub fn hours(hours: u64) -> Option<Duration> {
    Some(Duration::from_secs(hours * HOUR))
}

/// As it is documented, and as it is sent.
pub fn grouping_key(row: &Value) -> Option<&str> {
    ["recipientGroupingKey", "recipientGropuingKey"].iter().find_map(|name| row[name].as_str())
}

/// A recipient of a request, as all that is told later names it.
fn reference(row: &Value) -> Option<String> {
    Some(format!("{}/{}", word(&row["requestId"])?, word(&row["recipientSeq"])?))
}

/// A result as webhooks and lists tell of it. The key is the same in both, so that news that came both ways is one.
fn receipt(row: &Value, results: &Results) -> Result<Receipt, String> {
    let id = reference(row).ok_or("it has no requestId or no recipientSeq")?;
    let code = word(&row["resultCode"]).ok_or_else(|| format!("{id} has no resultCode"))?;
    let (outcome, class) = match (results.read(&code), row["messageStatus"].as_str()) {
        ((ReceiptOutcome::Failed, None), Some("FAILED_AD")) => (ReceiptOutcome::Failed, Some(ErrorClass::OutsideHours)),
        // It went out, under another request.
        (_, Some("DUPLICATED")) => (ReceiptOutcome::Accepted, None),
        (read, _) => read,
    };
    let at = ["receiveDate", "resultDate", "updateDate"].iter().find_map(|name| from_kst(row[name].as_str()?));
    let detail = ["resultCodeName", "resultMessage"].iter().map(|name| said(&row[name])).find(|text| !text.is_empty());
    Ok(Receipt {
        event_key: format!("{id}:{code}"),
        reference: grouping_key(row).and_then(|key| key.parse().ok()),
        provider_ref: Some(id),
        outcome,
        class,
        code: Some(code),
        detail,
        occurred_at: at,
    })
}

/// What the header says: the body if the request was taken, else what that means for all of it.
pub fn header(answer: &Answer, codes: &Codes) -> Result<Value, Outcome> {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return Err(by_status(answer)) };
    let header = &body["header"];
    match (header["isSuccessful"].as_bool(), word(&header["resultCode"])) {
        (Some(true), _) if (200..=299).contains(&answer.status) => Ok(body),
        (Some(false), Some(code)) => {
            let class = if answer.status == 429 { Some(ErrorClass::Throttled) } else { codes.class(&code) };
            let (class, detail) = (class.unwrap_or(ErrorClass::Content), said(&header["resultMessage"]));
            Err(Outcome::Rejected { class, code, detail, retry_after: answer.retry_after })
        }
        _ => Err(by_status(answer)),
    }
}

/// What an answer says of each recipient. `place`: where request and recipients stand, `results`: what these are called.
pub fn verdicts(
    letters: &[SendRequest<'_>],
    answer: &Answer,
    codes: &Codes,
    place: &str,
    results: &str,
) -> Vec<Outcome> {
    let body = match header(answer, codes) {
        Ok(body) => body,
        Err(outcome) => return of_all(outcome, letters),
    };
    let request = body.pointer(place).unwrap_or(&Value::Null);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; letters.len()];
    for entry in request[results].as_array().into_iter().flatten() {
        let found = whose(letters, grouping_key(entry), entry["recipientNo"].as_str());
        if let Some(outcome) = found.and_then(|n| outcomes.get_mut(n)) {
            *outcome = Some(of_recipient(entry, &request["requestId"], codes));
        }
    }
    let unsaid = || Outcome::Unknown { code: "answer_incomplete", detail: "the answer does not name it".to_owned() };
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unsaid)).collect()
}

fn of_recipient(entry: &Value, request: &Value, codes: &Codes) -> Outcome {
    match word(&entry["resultCode"]).as_deref() {
        Some("0") => {
            let (request, seq) = (word(request), word(&entry["recipientSeq"]));
            let id = request.zip(seq).map(|(request, seq)| format!("{request}/{seq}"));
            Outcome::Accepted { provider_ref: id }
        }
        Some(code) => rejected(codes.class(code).unwrap_or(ErrorClass::Content), code, said(&entry["resultMessage"])),
        None => Outcome::Unknown { code: "answer_incomplete", detail: "it has no resultCode".to_owned() },
    }
}

/// What the tests of NHN's services share.
#[cfg(test)]
pub mod testing {
    use super::super::Provider;
    use super::super::simulator::testing::{BUDGET, SHORT, content, letter, rejected, unknown};
    use super::super::vendor::testing::{Answers, made};
    use super::*;
    use crate::model::channel::Channel;
    use crate::provider::adapter::Adapter;
    use std::sync::Arc;

    pub const SIGNED_BY: &str = "0123456789abcdef";

    pub fn no(code: i64) -> (u16, String) {
        let header = format!(r#"{{"isSuccessful":false,"resultCode":{code},"resultMessage":"why"}}"#);
        (200, format!(r#"{{"header":{header}}}"#))
    }

    /// A whole request is refused with a code: the class it comes down to. And what has no header.
    pub async fn refusals(adapter: &Adapter, options: &[(&str, &str)], channel: Channel, codes: &[(i64, ErrorClass)]) {
        let template = crate::model::message::Content { template_code: Some("T".to_owned()), ..content(None, "x") };
        let to = |to| SendRequest { channel, ..letter(to, &template) };
        let mut answers: Vec<(u16, String)> = codes.iter().map(|(code, _)| no(*code)).collect();
        for (status, body) in [(401, ""), (429, ""), (503, ""), (500, "<html>"), (200, "<html>"), (200, "{}")] {
            answers.push((status, body.to_owned()));
        }
        let api = Answers::with(&answers).await;
        let provider = made(adapter, &[options, &[("base-url", api.url.as_str())]].concat(), BUDGET);
        for (code, class) in codes {
            assert_eq!(rejected(provider.send(to("+821012345678")).await), (*class, code.to_string()));
        }
        for class in [ErrorClass::Credentials, ErrorClass::Throttled, ErrorClass::ProviderInternal] {
            assert_eq!(rejected(provider.send(to("+821012345678")).await).0, class);
        }
        for code in ["http_5xx", "answer_unreadable", "answer_unreadable"] {
            assert_eq!(unknown(provider.send(to("+821012345678")).await), code);
        }
        for (api, code) in [(Answers::cutting().await, "answer_cut"), (Answers::silent().await, "no_answer")] {
            let provider = made(adapter, &[options, &[("base-url", api.url.as_str())]].concat(), SHORT);
            for outcome in provider.send_batch(vec![to("+821012345678")]).await {
                assert_eq!(unknown(outcome), code);
            }
        }
    }

    pub fn hooked(provider: &Arc<dyn Provider>, signature: Option<&str>, body: &str) -> Result<Receipts, Refused> {
        let mut headers = HeaderMap::new();
        if let Some(signature) = signature {
            headers.insert("X-Toast-Webhook-Signature", signature.parse().unwrap());
        }
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        provider.receipts(&Callback { headers: &headers, query: "", body: body.as_bytes(), now })
    }

    /// Whoever does not show the text that was agreed is refused before anything is read.
    pub fn forgeries(provider: &Arc<dyn Provider>) {
        for shown in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
            let refused = hooked(provider, shown, r#"{"hooks":[]}"#);
            assert!(matches!(refused, Err(Refused::Forged(_))), "{shown:?}: {refused:?}");
        }
        assert_eq!(hooked(provider, Some(SIGNED_BY), r#"{"hooks":[]}"#), Ok(Vec::new()));
        for body in ["", "[]", "{}", r#"{"hooks":7}"#] {
            assert!(matches!(hooked(provider, Some(SIGNED_BY), body), Err(Refused::Unreadable(_))), "{body}");
        }
    }
}
