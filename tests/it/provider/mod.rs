//! Providers: accounts of a channel, their limits and breakers, and adapters against simulators and programs of others.

mod account;
mod adapter;
mod breaker;
mod email;
mod fault;
mod http;
mod limit;
mod seed_001;
mod smtp_peer;
mod vendor_client;

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use notihub::clock::Clock;
use notihub::model::access::role::StaffRole;
use notihub::model::capability::{Batch, Capability, Terms};
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::Outcome;
use notihub::model::limit::{RateLimit, Strategy};
use notihub::model::retry::ErrorClass;
use notihub::provider::{Account, BoxFuture, LookupResult, Provider, SendRequest};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::app::{Answer, App, slack_post, start_time};

/// When each request was made, by the test's clock, which there is once there is a hub.
#[derive(Clone, Default)]
struct Calls {
    clock: Arc<Mutex<Option<Clock>>>,
    at: Arc<Mutex<Vec<DateTime<Utc>>>>,
}

impl Calls {
    fn note(&self) {
        let now = self.clock.lock().unwrap().as_ref().map_or_else(start_time, Clock::now);
        self.at.lock().unwrap().push(now);
    }

    fn count(&self) -> usize {
        self.at.lock().unwrap().len()
    }

    fn at(&self) -> Vec<DateTime<Utc>> {
        self.at.lock().unwrap().clone()
    }

    fn by(&self, app: &App) {
        *self.clock.lock().unwrap() = Some(app.hub.clock.clone());
    }
}

/// What the stub says now.
#[derive(Clone)]
struct Says(Arc<Mutex<Outcome>>);

impl Says {
    fn new(outcome: Outcome) -> Says {
        Says(Arc::new(Mutex::new(outcome)))
    }

    fn set(&self, outcome: Outcome) {
        *self.0.lock().unwrap() = outcome;
    }
}

fn good() -> Outcome {
    Outcome::Accepted { provider_ref: None }
}

fn no(class: ErrorClass) -> Outcome {
    Outcome::Rejected { class, code: "stub".into(), detail: "as the test says".into(), retry_after: None }
}

struct Stub {
    name: &'static str,
    channel: Channel,
    batch: Batch,
    says: Says,
    calls: Calls,
    /// Calls hang until the test lets them go.
    gate: Option<Arc<Semaphore>>,
    /// What it says when it is asked what it has; None: it is never asked.
    looked: Option<LookupResult>,
}

impl Stub {
    fn new(name: &'static str, channel: Channel, says: &Says, calls: &Calls) -> Stub {
        Stub { name, channel, batch: Batch::One, says: says.clone(), calls: calls.clone(), gate: None, looked: None }
    }

    fn on(self, terms: Terms) -> Account {
        Account::new(Arc::new(self), terms)
    }
}

impl Provider for Stub {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        let on_unknown = if self.looked.is_some() { OnUnknown::Lookup } else { self.channel.on_unknown() };
        vec![Capability { batch: self.batch, on_unknown, ..Capability::of(self.channel) }]
    }

    fn lookup<'a>(&'a self, _letter: SendRequest<'a>) -> BoxFuture<'a, LookupResult> {
        Box::pin(async { self.looked.clone().unwrap_or(LookupResult::Inconclusive) })
    }

    fn send<'a>(&'a self, _letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.calls.note();
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.says.0.lock().unwrap().clone()
        })
    }

    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            self.calls.note();
            vec![self.says.0.lock().unwrap().clone(); letters.len()]
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("a stub".to_owned()) })
    }
}

fn limited(count: u32, strategy: Strategy, burst: u32) -> Terms {
    let limit = RateLimit { strategy, burst, ..RateLimit::per_minute(count) };
    Terms { limit: Some(limit), ..Terms::default() }
}

fn weighing(weight: u32) -> Terms {
    Terms { weight, ..Terms::default() }
}

impl App {
    async fn post_many(&self, n: usize) -> Vec<String> {
        let bodies: Vec<Value> = (0..n).map(|n| slack_post(&format!("no {n}"))).collect();
        let mut ids = Vec::new();
        for some in bodies.chunks(1000) {
            let answer = self.post("/v1/messages/batch", json!({ "messages": some })).await.expect(202);
            let of = |message: &Value| message["messageId"].as_str().unwrap().to_owned();
            ids.extend(answer.body["messages"].as_array().unwrap().iter().map(of));
        }
        ids
    }

    async fn one(&self) -> String {
        self.post("/v1/messages", slack_post("one")).await.expect(202).id()
    }

    async fn operate(&self, method: &str, path: &str) -> Answer {
        self.fresh_token().await;
        let token = self.staff(StaffRole::Operator).await;
        self.ask(&token, method, path, None).await
    }

    /// A provider as operators see it.
    async fn provider(&self, name: &str) -> Value {
        let list = self.operate("GET", "/v1/providers").await.expect(200).body;
        list["items"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone()
    }

    /// The details of the entries of this kind in a message's timeline.
    async fn timeline(&self, id: &str, what: &str) -> Vec<String> {
        let timeline = self.get(&format!("/v1/messages/{id}/timeline")).await.expect(200);
        let items = timeline.body["items"].as_array().unwrap().iter().filter(|e| e["what"] == what);
        items.map(|e| e["detail"].as_str().unwrap().to_owned()).collect()
    }

    async fn attempts(&self) -> i64 {
        self.count("select count(*) from attempt_history").await
    }
}

async fn end(app: App) {
    app.settle_all().await;
    app.done().await;
}
