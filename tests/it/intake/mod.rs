//! Intake: what is posted, what is refused, and how it is read back.

mod content;
mod idempotency;
mod list;
mod message;
mod notification;
mod phone;
mod refusal;
mod sql;

use std::sync::{Arc, Mutex};

use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::provider::{BoxFuture, Provider, SendRequest};
use serde_json::{Value, json};

use crate::support::app::email;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn good() -> Value {
    email("kim@example.com")
}

/// `body` with something else at a place; a place that ends with `/-` is a new item.
fn changed(mut body: Value, path: &str, value: Value) -> Value {
    let (parent, last) = path.rsplit_once('/').expect("a pointer");
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.insert(last.to_owned(), value)),
        Some(Value::Array(items)) if last == "-" => items.push(value),
        Some(Value::Array(items)) => items[last.parse::<usize>().expect("an index")] = value,
        other => panic!("nothing at {parent}: {other:?}"),
    }
    body
}

const MOCKED: &str = "--mock=SMS,LMS,MMS,KAKAO_ALIMTALK,KAKAO_BRAND_MESSAGE,NAVER_TALK,RCS";

const KIM: &str = "010-1234-5678";

fn sms_to(to: Value) -> Value {
    json!({"type": "TEST", "body": "b", "channels": [{"channel": "SMS", "to": to}]})
}

/// A provider that takes everything, remembers it, and holds bodies shorter than its channel does.
struct Strict {
    channel: Channel,
    limit: Option<usize>,
    got: Mutex<Vec<(String, Value)>>,
}

impl Strict {
    fn new(channel: Channel, limit: Option<usize>) -> Arc<Strict> {
        Arc::new(Strict { channel, limit, got: Mutex::default() })
    }
}

impl Provider for Strict {
    fn name(&self) -> &'static str {
        "strict"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { body: self.limit, ..Capability::of(self.channel) }]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        let content = serde_json::to_value(letter.content).unwrap();
        self.got.lock().unwrap().push((letter.to.to_owned(), content));
        Box::pin(std::future::ready(Outcome::Accepted { provider_ref: None }))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok("takes everything".to_owned())))
    }
}
