//! A partner's endpoint on loopback. It answers at once, never, or first with a refusal, and counts what arrives.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::client::{Client, Target};
use super::judge::Arrived;
use crate::clock::Clock;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::flow::partner::Credentials;
use crate::id::Tsid;
use crate::model::egress;
use crate::model::event::EventKind;
use crate::shutdown::Shutdown;

/// The behaviour of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointBehavior {
    /// Answers 204 at once.
    Prompt,
    /// Reads requests and never answers.
    Never,
    /// Answers 500 to the first attempt of every other event, and otherwise 204 at once.
    Flapping,
}

/// Whether the first attempt of an event is refused: true for every other event.
fn is_refused_at_first(event_id: &str) -> bool {
    event_id.bytes().map(u32::from).sum::<u32>().is_multiple_of(2)
}

pub struct Endpoint {
    pub url: String,
    counts: Arc<Mutex<EndpointCounts>>,
}

/// The requests that arrived.
#[derive(Default)]
struct EndpointCounts {
    calls: u64,
    refused: u64,
    disordered: u64,
    /// The position of the latest accepted event, by message.
    latest: HashMap<String, usize>,
    /// The events by id, each with the hash of its first copy.
    events: HashMap<String, (Arrived, u64)>,
    waits: BTreeMap<String, Waits>,
}

/// The microseconds between events and their first arrival.
pub type Waits = Vec<u64>;

/// The key for the waits of completions, measured from the acceptance of their messages.
pub const WHOLE: &str = "accepted → message.completed";

impl Endpoint {
    /// Starts an endpoint that runs until `here` stops.
    ///
    /// # Errors
    /// `Error::Setup` if no port is free.
    pub async fn start(behavior: EndpointBehavior, clock: Clock, here: &Shutdown) -> Result<Endpoint> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|e| Error::Setup(format!("no port is free on loopback: {e}")))?;
        let address = listener.local_addr().map_err(|e| Error::Internal(e.to_string()))?;
        let counts: Arc<Mutex<EndpointCounts>> = Arc::default();
        here.spawn(accept(listener, behavior, clock, counts.clone(), here.clone()));
        Ok(Endpoint { url: format!("http://{address}/hook"), counts })
    }

    /// Registers the endpoint at the hub for these events of a partner; none: all. `ordered`: the events of a message
    /// one after the other.
    ///
    /// # Errors
    /// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
    pub async fn register(
        &self,
        api: &str,
        credentials: &Credentials,
        events: Option<&[EventKind]>,
        ordered: bool,
    ) -> Result<()> {
        let client = Client::new(&Target::of(format!("http://{api}"), credentials))?;
        let words = events.map(|events| events.iter().map(|e| e.as_str()).collect::<Vec<_>>());
        client.post("/v1/webhooks", &json!({"url": self.url, "events": words, "ordered": ordered})).await.map(drop)
    }

    fn counts(&self) -> MutexGuard<'_, EndpointCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of requests, repeats included.
    pub fn calls(&self) -> u64 {
        self.counts().calls
    }

    /// The number of different events.
    pub fn events(&self) -> u64 {
        self.counts().events.len() as u64
    }

    /// The number of events whose first attempt was refused.
    pub fn refused(&self) -> u64 {
        self.counts().refused
    }

    /// The number of events that were accepted before an earlier event of the same message.
    pub fn disordered(&self) -> u64 {
        self.counts().disordered
    }

    /// The events that arrived, by id.
    pub fn arrived(&self) -> HashMap<String, Arrived> {
        self.counts().events.iter().map(|(id, (arrived, _))| (id.clone(), *arrived)).collect()
    }

    /// Takes the recorded waits, by event.
    pub fn take_waits(&self) -> BTreeMap<String, Waits> {
        std::mem::take(&mut self.counts().waits)
    }
}

/// The settings with endpoints on loopback allowed.
pub fn reachable(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.webhooks.webhook_allow_http = true;
    settings.webhooks.webhook_allow_networks.extend(egress::parse_network("127.0.0.0/8"));
    settings
}

async fn accept(
    listener: TcpListener,
    behavior: EndpointBehavior,
    clock: Clock,
    counts: Arc<Mutex<EndpointCounts>>,
    here: Shutdown,
) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            () = here.stopping() => return,
        };
        // Answers are small, and their latency is measured: do not delay them (Nagle).
        let _as_it_is = stream.set_nodelay(true);
        let (clock, counts, stopping) = (clock.clone(), counts.clone(), here.clone());
        let service =
            hyper::service::service_fn(move |request| respond(behavior, clock.clone(), counts.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        here.spawn(async move {
            tokio::select! { _ended = connection => (), () = stopping.stopping() => () }
        });
    }
}

async fn respond(
    behavior: EndpointBehavior,
    clock: Clock,
    counts: Arc<Mutex<EndpointCounts>>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Empty<Bytes>>, hyper::Error> {
    let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let taken = counts.lock().unwrap_or_else(PoisonError::into_inner).note(behavior, &id, &body, clock.now());
    if behavior == EndpointBehavior::Never {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = if taken { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR };
    Ok(response)
}

impl EndpointCounts {
    /// Counts a request and returns whether it is accepted.
    fn note(&mut self, behavior: EndpointBehavior, id: &str, body: &[u8], now: DateTime<Utc>) -> bool {
        self.calls += 1;
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let bytes = hasher.finish();
        if let Some((arrived, first)) = self.events.get_mut(id) {
            arrived.copies += 1;
            arrived.same &= *first == bytes;
            let now_taken = !arrived.taken && behavior != EndpointBehavior::Never;
            arrived.taken |= now_taken;
            let taken = arrived.taken;
            if now_taken {
                self.take(id);
            }
            return taken;
        }
        let taken = match behavior {
            EndpointBehavior::Prompt => true,
            EndpointBehavior::Never => false,
            EndpointBehavior::Flapping => !is_refused_at_first(id),
        };
        self.refused += u64::from(!taken && behavior == EndpointBehavior::Flapping);
        self.events.insert(id.to_owned(), (Arrived { copies: 1, same: true, taken }, bytes));
        if taken {
            self.take(id);
        }
        let event_body: Value = serde_json::from_slice(body).unwrap_or_default();
        let event = event_body["event"].as_str().unwrap_or_default();
        let happened: Option<DateTime<Utc>> = event_body["occurredAt"].as_str().and_then(|at| at.parse().ok());
        if let Some(happened) = happened {
            self.waits.entry(event.to_owned()).or_default().push(micros(now, happened));
        }
        let accepted = event_body["messageId"].as_str().and_then(|id| id.parse::<Tsid>().ok()).map(Tsid::time);
        if let Some(accepted) = accepted.filter(|_| event == EventKind::MessageCompleted.as_str()) {
            self.waits.entry(WHOLE.to_owned()).or_default().push(micros(now, accepted));
        }
        taken
    }
}

impl EndpointCounts {
    /// Records the order in which the events of a message are accepted: accepted, sent, completed.
    fn take(&mut self, id: &str) {
        let Some((message, event)) = id.split_once('-') else { return };
        let Some(place) = ["0-1", "1-1", "0-2"].iter().position(|known| *known == event) else { return };
        let latest = self.latest.entry(message.to_owned()).or_default();
        self.disordered += u64::from(place < *latest);
        *latest = place.max(*latest);
    }
}

/// The microseconds between two times. `occurredAt` is cut to milliseconds, which adds half a millisecond on average.
fn micros(now: DateTime<Utc>, then: DateTime<Utc>) -> u64 {
    (now - then).num_microseconds().unwrap_or(0).max(1).unsigned_abs()
}
