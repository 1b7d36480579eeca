//! A vendor of all text channels that answers as scripted and reports receipts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use notihub::flow;
use notihub::model::capability::Capability;
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::{DeliveryKey, Outcome};
use notihub::model::receipt::{AttemptReference, Receipt};
use notihub::model::retry::{ErrorClass, RETRY_RULES};
use notihub::provider::{BoxFuture, Callback, CallbackError, Provider, ReceiptPage, Receipts, SendRequest};
use serde_json::{Value, json};

use crate::support::app::{Answer, App};

/// A vendor of all text channels that gives the queued answers and else accepts every message. It takes receipts in a
/// form of its own from callers that know its word, and has a list of results.
#[derive(Default)]
pub struct Vendor {
    pub within: Option<Duration>,
    pub answers: Mutex<BTreeMap<Channel, VecDeque<Outcome>>>,
    pub sent: Mutex<Vec<(Channel, String, String)>>,
    /// The pages of its list; each is asked for by its number.
    pub pages: Mutex<Vec<Vec<Value>>>,
    pub asked: Mutex<Vec<Option<String>>>,
    pub polls: bool,
}

impl Vendor {
    pub fn with_receipts() -> Arc<Vendor> {
        Arc::new(Vendor { within: Some(Duration::from_secs(3600)), ..Vendor::default() })
    }

    pub fn answer(&self, channel: Channel, outcomes: impl IntoIterator<Item = Outcome>) {
        self.answers.lock().unwrap().entry(channel).or_default().extend(outcomes);
    }

    pub fn took(&self) -> Vec<(Channel, String, String)> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

pub fn refused(class: ErrorClass) -> Outcome {
    Outcome::Rejected { class, code: "7000".into(), detail: "no".into(), retry_after: None }
}

/// An unknown outcome of one message alone: a provider without any answer would be held back by its breaker.
pub fn unknown() -> Outcome {
    Outcome::Unknown { code: "answer_incomplete", detail: "nothing is said of it".into() }
}

pub fn read(item: &Value) -> Result<Receipt, String> {
    let text = |name: &str| item[name].as_str().map(str::to_owned);
    let class = text("class").and_then(|word| RETRY_RULES.iter().find(|row| row.reason == word)).map(|row| row.class);
    Ok(Receipt {
        event_key: text("key").ok_or("it has no key")?,
        reference: text("ref").and_then(|text| text.parse().ok()),
        provider_ref: text("id"),
        outcome: text("outcome").ok_or("it has no outcome")?.parse()?,
        class,
        code: text("code"),
        detail: text("detail"),
        occurred_at: text("at").and_then(|at| at.parse().ok()),
    })
}

impl Provider for Vendor {
    fn name(&self) -> &'static str {
        "vendor"
    }

    fn capabilities(&self) -> Vec<Capability> {
        let of = |channel| Capability {
            receipt_within: self.within,
            on_unknown: OnUnknown::Retry,
            ..Capability::of(channel)
        };
        notihub::model::channel::TEXT_CHANNELS.map(of).to_vec()
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        let shown = (letter.channel, letter.to.to_owned(), letter.content.body.clone());
        self.sent.lock().unwrap().push(shown);
        let answer = self.answers.lock().unwrap().get_mut(&letter.channel).and_then(VecDeque::pop_front);
        let accepted = Outcome::Accepted { provider_ref: Some(letter.reference().to_string()) };
        Box::pin(std::future::ready(answer.unwrap_or(accepted)))
    }

    fn parse_receipts(&self, callback: &Callback<'_>) -> Result<Receipts, CallbackError> {
        if callback.headers.get("x-word").is_none_or(|word| word != "swordfish") {
            return Err(CallbackError::NotAuthentic("it does not know the word".into()));
        }
        let items: Vec<Value> =
            serde_json::from_slice(callback.body).map_err(|e| CallbackError::Unreadable(e.to_string()))?;
        Ok(items.iter().map(read).collect())
    }

    fn poll_receipts<'a>(
        &'a self,
        cursor: Option<&'a str>,
        _now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Result<ReceiptPage, String>>> {
        if !self.polls {
            return None;
        }
        Some(Box::pin(async move {
            self.asked.lock().unwrap().push(cursor.map(str::to_owned));
            let page: usize = cursor.map_or(0, |c| c.parse().unwrap());
            let pages = self.pages.lock().unwrap();
            let items = pages.get(page).ok_or("the list is out of order")?;
            let receipts = items.iter().map(read).collect();
            Ok(ReceiptPage { receipts, cursor: (page + 1).to_string(), has_more: page + 1 < pages.len() })
        }))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok("it answers as told".to_owned())))
    }
}

pub fn over(channel: &str) -> Value {
    json!({"type": "TEST", "body": "b", "channels": [{"channel": channel, "to": "010-1234-5678"}]})
}

pub fn reference(app: &App, id: &str, no: i16, attempt: i16) -> String {
    let key = DeliveryKey { shard: app.partner.shard, message_id: id.parse().unwrap(), no };
    AttemptReference { key, attempt }.to_string()
}

/// As the vendor calls.
pub async fn call(app: &App, provider: &str, word: &str, body: Vec<u8>) -> Answer {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(app.uri(&format!("/v1/receipts/{provider}"))).header("x-word", word).body(body);
    Answer::read(request).await
}

/// Calls back with these receipts and the right word.
pub async fn send_receipts(app: &App, items: Value) {
    call(app, "vendor", "swordfish", items.to_string().into_bytes()).await.expect(200);
}

/// Sends one receipt of the first attempt of delivery `no`, and applies all that wait.
pub async fn apply_receipt(app: &App, id: &str, no: i16, outcome: &str) {
    let key = format!("{id}-{no}-{outcome}");
    send_receipts(app, json!([{"key": key, "ref": reference(app, id, no, 1), "outcome": outcome}])).await;
    while flow::receipt::apply(&app.hub).await.unwrap() {}
}

pub async fn statuses(app: &App, id: &str) -> Vec<String> {
    let message = app.message(id).await;
    let word = |d: &Value| d["status"].as_str().unwrap().to_owned();
    message["deliveries"].as_array().unwrap().iter().map(word).collect()
}
