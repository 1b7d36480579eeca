//! NHN Cloud RCS Bizmessage v1.0: texts, one recipient in each request. It carries nothing of ours and calls nobody back:
//! results are known by the id that a request was answered with, and asked for. So an outcome that is unknown stays unknown.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::error::Result;
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Common, Options};
use super::http::Answer;
use super::nhn::{self, Nhn, hours};
use super::vendor::{self, Codes, digits, from_kst, word};
use super::window::Window;
use super::{Letter, Pending, Polled, Provider};

pub const ADAPTER: Adapter = Adapter {
    name: "nhn-rcs",
    about: "NHN Cloud RCS Bizmessage v1.0: RCS texts",
    options: &[
        ("app-key", "of the project's RCS Bizmessage service; needed"),
        ("secret-key", "of the same; needed"),
        ("brand-id", "the RCS brand; needed"),
        ("chatbot-id", "the sender's number, registered with the brand; needed"),
        ("base-url", "where it is (https://rcs-bizmessage.api.nhncloudservice.com)"),
    ],
    make: |options, common| Ok(Arc::new(NhnRcs::new(options, common)?)),
};

/// What fits into one of the short kind.
const SHORT_CHARS: usize = 100;
const TITLE_CHARS: usize = 30;
const KINDS: [&str; 2] = ["sms", "lms"];
const TIME: &str = "%Y-%m-%d %H:%M:%S";
/// Rows asked for at a time: each that failed costs a request to learn why.
const PAGE: usize = 100;

/// Codes of requests.
const CODES: Codes = Codes(&[
    (ErrorClass::Sender, &["-3001", "-4000", "-4001", "-4010", "-4011", "-4040", "-4041", "-4050"]),
    (ErrorClass::Template, &["-4020", "-4021", "-4022", "-4023", "-4024"]),
    (ErrorClass::OptedOut, &["-4042"]),
    (ErrorClass::Hours, &["-9000"]),
    (ErrorClass::ProviderInternal, &["500", "-5000", "-5001", "-5002", "-6000", "-6001", "-8000", "-9999"]),
    (ErrorClass::Content, &["400", "-30*", "-403*", "-4060"]),
]);

/// Codes of what was not received.
const FAILURES: Codes = Codes(&[
    (
        ErrorClass::Credentials,
        &["50001", "50002", "50003", "50004", "50005", "50006", "50007", "50008", "50009", "4000*", "5110*"],
    ),
    (ErrorClass::Throttled, &["50201", "41003", "42601"]),
    (ErrorClass::Quota, &["50202"]),
    (ErrorClass::ProviderInternal, &["41000", "41001", "41004", "41005", "45*", "54004", "59*", "519*"]),
    (ErrorClass::Address, &["52001", "54001", "55817"]),
    (ErrorClass::NotReachable, &["54002", "54003", "412*", "41101"]),
    (ErrorClass::Handset, &["52016", "56007", "41006", "41008", "41100", "55821"]),
    (ErrorClass::Spam, &["42602"]),
    (ErrorClass::Sender, &["552*", "553*", "55807", "55808", "55809", "55819"]),
    (ErrorClass::Template, &["52023", "555*", "556*", "55814", "55818"]),
    (ErrorClass::Content, &["557*", "558*", "55900", "42*", "53*"]),
]);

/// A message that was taken before under this id.
const DUPLICATES: [&str; 2] = ["55806", "42514"];

struct NhnRcs {
    nhn: Nhn,
    brand_id: String,
    chatbot_id: String,
    app_key: HeaderValue,
}

impl NhnRcs {
    fn new(options: &mut Options, common: &Common) -> Result<NhnRcs> {
        let (brand_id, chatbot_id) = (options.require("brand-id")?, vendor::sender(options, "chatbot-id")?);
        let nhn = Nhn::new(options, "https://rcs-bizmessage.api.nhncloudservice.com", common)?;
        let (_, app_key) = vendor::secret_header(options, "app-key", APP_KEY, &nhn.app_key)?;
        Ok(NhnRcs { nhn, brand_id, chatbot_id, app_key })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = self.nhn.headers();
        headers.insert(APP_KEY, self.app_key.clone());
        headers
    }

    async fn post(&self, letter: Letter<'_>) -> Outcome {
        let content = letter.content;
        let mut body = json!({
            "brandId": self.brand_id, "chatbotId": self.chatbot_id, "recipientNumber": digits(letter.to),
            "body": content.body, "isAd": false, "isFallback": false,
        });
        let short = content.body.chars().count() <= SHORT_CHARS && content.subject.is_none();
        let kind = if short { "sms" } else { "lms" };
        if let Some(subject) = &content.subject {
            body["title"] = Value::from(subject.chars().take(TITLE_CHARS).collect::<String>());
        }
        match self.nhn.vendor.post(&format!("/rcs/v1.0/messages/{kind}"), &body, self.headers(), 1).await {
            Ok(answer) => verdict(&answer),
            Err(failure) => failure.into_outcome(),
        }
    }

    /// One page of one kind: first all short ones of a window, then all long ones.
    async fn results(&self, cursor: Option<&str>, now: DateTime<Utc>) -> Result<Polled, String> {
        let window = Window::open(cursor, now);
        let (kind, offset) = place(window.place.as_deref());
        let Some(name) = KINDS.get(kind) else { return Err("its cursor names no kind".to_owned()) };
        let (start, end) = (vendor::to_kst(window.from, TIME), vendor::to_kst(window.until, TIME));
        let (from, limit) = (offset.to_string(), PAGE.to_string());
        let query = [
            ("startReceiveDateTime", start.as_str()),
            ("endReceiveDateTime", &end),
            ("limit", &limit),
            ("offset", &from),
        ];
        let path = format!("/rcs/v1.0/messages/{name}");
        let body = self.nhn.list(&path, &query, self.headers()).await?;
        let rows = body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut receipts = Vec::new();
        for row in rows {
            match row["messageStatus"].as_str() {
                Some("DELIVERED") => receipts.push(receipt(row, None)),
                Some("FAILED" | "CANCELLED") => {
                    let why = self.why(&path, row).await?;
                    receipts.push(receipt(row, why.as_deref()));
                }
                _ => (),
            }
        }
        let next = match (rows.len() >= PAGE, kind + 1 < KINDS.len()) {
            (true, _) => Some(format!("{kind}.{}", offset + PAGE)),
            (false, true) => Some(format!("{}.0", kind + 1)),
            (false, false) => None,
        };
        let (cursor, more) = window.next(next.as_deref(), now);
        Ok(Polled { receipts, cursor, more })
    }

    /// A list tells that something failed, and only the message itself why.
    async fn why(&self, path: &str, row: &Value) -> Result<Option<String>, String> {
        let Some(id) = word(&row["messageId"]).filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric())) else {
            return Ok(None);
        };
        let body = self.nhn.list(&format!("{path}/{id}"), &[], self.headers()).await?;
        Ok(word(&body["messageRecipient"]["resultCode"]))
    }
}

const APP_KEY: HeaderName = HeaderName::from_static("x-tc-app-key");

/// `1.200`: which kind, and how many of it were read.
fn place(text: Option<&str>) -> (usize, usize) {
    let parsed = |text: &str| {
        let (kind, offset) = text.split_once('.')?;
        Some((kind.parse().ok()?, offset.parse().ok()?))
    };
    text.and_then(parsed).unwrap_or_default()
}

fn verdict(answer: &Answer) -> Outcome {
    match nhn::header(answer, &CODES) {
        Ok(body) => Outcome::Accepted { provider_ref: word(&body["messageId"]) },
        Err(outcome) => outcome,
    }
}

fn receipt(row: &Value, why: Option<&str>) -> Result<Receipt, String> {
    let id = word(&row["messageId"]).ok_or("it has no messageId")?;
    let status = row["messageStatus"].as_str().unwrap_or_default();
    let outcome = match (status, why) {
        ("DELIVERED", _) => ReceiptOutcome::Delivered,
        (_, Some(code)) if DUPLICATES.contains(&code) => ReceiptOutcome::Accepted,
        _ => ReceiptOutcome::Failed,
    };
    let class = why.filter(|_| outcome == ReceiptOutcome::Failed).and_then(|code| FAILURES.class(code));
    Ok(Receipt {
        event_key: format!("{id}:{status}"),
        reference: None,
        provider_ref: Some(id),
        outcome,
        class,
        code: why.map(str::to_owned),
        detail: None,
        occurred_at: row["receiveDateTime"].as_str().and_then(from_kst),
    })
}

impl Provider for NhnRcs {
    fn name(&self) -> &str {
        &self.nhn.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { receipt_within: hours(73), ..Capability::of(Channel::Rcs) }]
    }

    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.post(letter))
    }

    fn poll<'a>(&'a self, cursor: Option<&'a str>, now: DateTime<Utc>) -> Option<Pending<'a, Result<Polled, String>>> {
        Some(Box::pin(self.results(cursor, now)))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.nhn.vendor.check())
    }
}
