//! What the simulators of messaging vendors share: the accepted messages, their receipts and when these are sent, magic
//! recipients, a clock that can run faster, and the vendor's restrictions (rate limit, balance, registered senders).
//!
//! Beside `/_records` and `/_script` there are, over HTTP:
//!
//! - `POST /_clock {"rate": 60}`: delays pass this many times faster; 0 stops them.
//! - `POST /_receipts`: sends all scheduled receipts now, in their order.
//! - `POST /_settings {"callback": URL, "senders": ["0212345678"], "balance": 3, "limit": {"requests": 100, "seconds":
//!   60}}`: the URL of callbacks (by product: `{"sms": URL, …}`), the registered senders, the number of messages that
//!   are still paid for, and the rate limit. Settings that are not named stay as they are; null resets one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use url::Url;

use super::magic::{self, Effect, ReceiptPlan, RefusalReason, RequestFault};
use super::{Behaviour, ConnectionCut, Control, ServiceResult};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::provider::http::{ClientSettings, ConnectionPolicy, DecidedBy, HttpClient};
use crate::shutdown::Shutdown;

/// The most messages kept for look-ups and lists; then the oldest is dropped.
const MAX_MESSAGES: usize = 200_000;
/// The most failed magic requests, and the most used keys, that are remembered; then all are forgotten.
const MAX_REMEMBERED: usize = 10_000;
/// The time limit of a callback.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);
/// The sender that is not registered, where no setting lists the registered ones.
pub const UNREGISTERED_SENDER: &str = "0200000000";

/// When receipts are sent, in seconds of the vendor's time after the message was accepted.
const RECEIPT_AFTER_S: f64 = 2.0;
const SECOND_RECEIPT_AFTER_S: f64 = 4.0;
const LATE_RECEIPT_AFTER_S: f64 = 600.0;
const EXPIRED_AFTER_S: f64 = 25.0 * 3600.0;

/// What a simulator is started with.
#[derive(Clone)]
pub struct SimulatorSetup {
    /// The port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// The URL of callbacks; without one no receipts are sent.
    pub callback: Option<String>,
    /// How many times faster delays pass. 0: receipts are sent only by `send_all_receipts`.
    pub rate: f64,
    /// The clock of the vendor's dates. Dates of signatures are compared with this machine's own clock.
    pub clock: Clock,
}

impl Default for SimulatorSetup {
    fn default() -> SimulatorSetup {
        SimulatorSetup { port: 0, callback: None, rate: 1.0, clock: Clock::system() }
    }
}

/// An accepted message, as `GET /_records` returns it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedMessage {
    /// The vendor's own id of the message.
    pub id: String,
    /// The id of its request or group, where the vendor has such ids.
    pub request: String,
    /// Its position in the request, from 1.
    pub place: usize,
    /// The vendor's name for its type.
    pub kind: String,
    pub from: Option<String>,
    pub to: String,
    pub subject: Option<String>,
    /// As the vendor stores it: some cut it, or replace characters by question marks.
    pub text: String,
    /// The reference that receipts repeat.
    pub reference: Option<String>,
    pub at: DateTime<Utc>,
    /// Further fields that the vendor stores.
    pub options: Value,
}

/// The result of a message so far. The names are part of the ids of receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageResult {
    Pending,
    Delivered,
    Failed,
    Expired,
    NotAUser,
}

/// A message with its present result.
#[derive(Debug, Clone)]
pub(super) struct MessageState {
    pub message: AcceptedMessage,
    pub result: MessageResult,
    /// When the result changed last.
    pub changed_at: DateTime<Utc>,
}

/// One receipt.
#[derive(Debug, Clone)]
pub(super) struct ReceiptEvent {
    /// The receipt's id, the same in each repetition.
    pub event_id: String,
    pub state: MessageState,
}

/// The body and headers of one callback.
pub(super) struct CallbackRequest {
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

/// Why a whole request is refused.
pub(super) enum RequestRefusal<'a> {
    Credentials,
    Limited,
    Scripted(u16, &'a str),
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What distinguishes one vendor from another.
pub(super) struct VendorProfile {
    pub name: &'static str,
    /// Its usual status and error word, for scripts that name none.
    pub refusal: (u16, &'static str),
    pub respond: fn(VendorSimulator, ApiRequest) -> BoxFuture<ServiceResult>,
    pub refuse: fn(RequestRefusal<'_>) -> Response<Full<Bytes>>,
    /// Whether this kind of message reaches only users of an app, such as KakaoTalk.
    pub needs_app_user: fn(&str) -> bool,
    pub callbacks: Option<CallbackRules>,
}

/// How the vendor sends receipts.
pub(super) struct CallbackRules {
    /// The callback URL's product for a kind of message, empty where the vendor has one URL. `None`: no receipt is
    /// sent.
    pub product: fn(&str) -> Option<&'static str>,
    /// Makes the callback from receipts, the number of earlier tries, and the time.
    pub build: fn(&[ReceiptEvent], u32, DateTime<Utc>) -> CallbackRequest,
    /// The most receipts of one callback.
    pub max_events: usize,
    /// The seconds before each retry of a callback that was not answered with 200.
    pub retry_after_s: &'static [f64],
}

/// A request to the vendor's API.
pub(super) struct ApiRequest {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ApiRequest {
    /// Returns a header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns whether the body's type is JSON.
    pub fn is_json(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.split(';').next() == Some("application/json"))
    }

    /// Returns the last value of a name in the query. `None` if it is missing or empty.
    pub fn query_value(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(n, value)| n == name && !value.is_empty()).last().map(|(_, value)| value.into_owned())
    }

    /// Returns a number in the query, or `default`.
    pub fn query_number(&self, name: &str, default: usize) -> usize {
        self.query_value(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
}

/// A running simulator of one vendor. Clones share its state.
#[derive(Clone)]
pub struct VendorSimulator(Arc<Inner>);

struct Inner {
    profile: &'static VendorProfile,
    address: SocketAddr,
    control: Control<AcceptedMessage>,
    clock: Clock,
    shutdown: Shutdown,
    http: HttpClient,
    state: Mutex<State>,
    /// Wakes the task that sends receipts, when one is scheduled or the clock's rate changes.
    wake: Notify,
    /// Held while receipts are sent, so that they are sent in order, and a caller knows when all were sent.
    sending: tokio::sync::Mutex<()>,
}

struct State {
    time: VendorTime,
    callbacks: BTreeMap<String, Url>,
    senders: Option<HashSet<String>>,
    balance: Option<u64>,
    limit: Option<Limit>,
    request_times: VecDeque<DateTime<Utc>>,
    /// Magic requests that failed once and succeed the next time.
    faulted: HashSet<String>,
    /// Keys that may be used once, and when they were used.
    used_keys: HashMap<String, DateTime<Utc>>,
    last_number: u64,
    messages: BTreeMap<String, MessageState>,
    /// Scheduled receipts by due time (microseconds of the vendor's time) and sequence number.
    scheduled: BTreeMap<(u64, u64), ScheduledReceipts>,
}

/// Receipts that are due at one time.
struct ScheduledReceipts {
    events: Vec<ReceiptEvent>,
    /// Whether the messages' stored results become those of the receipts.
    changes_result: bool,
    sent: bool,
    tries: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    requests: usize,
    seconds: u32,
}

/// The vendor's time in seconds, which runs `rate` times as fast as this machine's.
struct VendorTime {
    rate: f64,
    since: Instant,
    offset_s: f64,
}

impl VendorTime {
    fn new(rate: f64, before: f64) -> VendorTime {
        VendorTime { rate, since: Instant::now(), offset_s: before }
    }

    fn now(&self) -> f64 {
        self.offset_s + self.since.elapsed().as_secs_f64() * self.rate
    }

    /// Returns the real time until `due`, in microseconds of the vendor's time. `None` while the clock stands still.
    fn until(&self, due: u64) -> Option<Duration> {
        let left = (seconds(due) - self.now()).max(0.0) / self.rate;
        Duration::try_from_secs_f64(left).ok()
    }
}

fn micros(seconds: f64) -> u64 {
    // `as` saturates.
    (seconds * 1e6) as u64
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    rate: f64,
}

impl VendorSimulator {
    pub(super) async fn start(
        trade: &'static VendorProfile,
        setup: SimulatorSetup,
        shutdown: &Shutdown,
    ) -> Result<VendorSimulator> {
        let listener = super::listen(setup.port).await?;
        let state = State {
            time: VendorTime::new(setup.rate, 0.0),
            callbacks: BTreeMap::new(),
            senders: None,
            balance: None,
            limit: None,
            request_times: VecDeque::new(),
            faulted: HashSet::new(),
            used_keys: HashMap::new(),
            last_number: 0,
            messages: BTreeMap::new(),
            scheduled: BTreeMap::new(),
        };
        let tls = setup.callback.as_deref().is_some_and(|url| url.starts_with("https:"));
        let vendor = VendorSimulator(Arc::new(Inner {
            profile: trade,
            address: super::bound_address(&listener)?,
            control: Control::new(),
            clock: setup.clock,
            shutdown: shutdown.clone(),
            http: HttpClient::new(&ClientSettings::with_budget(CALLBACK_TIMEOUT), ConnectionPolicy::KeepAlive, tls)?,
            state: Mutex::new(state),
            wake: Notify::new(),
            sending: tokio::sync::Mutex::new(()),
        }));
        if let Some(url) = setup.callback {
            vendor.set_callback("", &url)?;
        }
        let session = {
            let vendor = vendor.clone();
            move |stream| {
                let vendor = vendor.clone();
                let shutdown = vendor.0.shutdown.clone();
                super::serve_http(stream, shutdown, move |request| vendor.clone().answer(request))
            }
        };
        shutdown.spawn(super::accept_connections(listener, shutdown.clone(), session));
        shutdown.spawn(vendor.clone().send_receipts_when_due());
        Ok(vendor)
    }

    /// The vendor's name, as `notihub simulate` has it.
    pub fn name(&self) -> &'static str {
        self.0.profile.name
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The base URL of its API.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// The number of accepted messages that are recorded.
    pub fn accepted_count(&self) -> u64 {
        self.0.control.record_count()
    }

    /// Returns the accepted messages, in order of arrival.
    pub fn records(&self) -> Vec<AcceptedMessage> {
        self.0.control.records()
    }

    /// Sets the behaviour for the next `times` valid requests, after those scripted before.
    pub fn script(&self, behaviour: Behaviour, times: u32) {
        self.0.control.push_script(behaviour, times);
    }

    /// Sets the callback URL of a product, or of all with an empty `product`.
    ///
    /// # Errors
    /// `Error::Setup` if the text is not a URL.
    pub fn set_callback(&self, product: &str, url: &str) -> Result<()> {
        let url = Url::parse(url).map_err(|e| Error::Setup(format!("a callback of {}: {e}", self.name())))?;
        self.state().callbacks.insert(product.to_owned(), url);
        Ok(())
    }

    /// Sets how many times faster delays pass from now on.
    pub fn set_rate(&self, rate: f64) {
        let mut state = self.state();
        state.time = VendorTime::new(rate, state.time.now());
        drop(state);
        self.0.wake.notify_one();
    }

    /// Sends all scheduled receipts once, in their order, also those not yet due. When it returns, each was answered or
    /// is scheduled again.
    pub async fn send_all_receipts(&self) {
        self.send_receipts_until(u64::MAX).await;
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request<Incoming>) -> ServiceResult {
        let is_own_path = ["/_clock", "/_receipts", "/_settings"].contains(&request.uri().path());
        if !is_own_path && request.uri().path().starts_with("/_") {
            return Ok(super::serve_control(&self.0.control, self.0.profile.refusal, request).await);
        }
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        let Some(body) = super::read_body(Request::new(body)).await else {
            return Ok(super::text_response(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or incomplete"));
        };
        let call = ApiRequest { method: parts.method, path, query, headers: parts.headers, body };
        if is_own_path { Ok(self.control(&call).await) } else { (self.0.profile.respond)(self.clone(), call).await }
    }

    async fn control(&self, call: &ApiRequest) -> Response<Full<Bytes>> {
        let done = match (&call.method, call.path.as_str()) {
            (&Method::POST, "/_clock") => self.set_clock(&call.body),
            (&Method::POST, "/_settings") => self.change_settings(&call.body),
            (&Method::POST, _) => {
                self.send_all_receipts().await;
                Ok(())
            }
            _ => Err("there are POST /_clock, POST /_settings and POST /_receipts".to_owned()),
        };
        match done {
            Ok(()) => super::text_response(StatusCode::OK, "ok"),
            Err(reason) => super::text_response(StatusCode::BAD_REQUEST, &reason),
        }
    }

    fn set_clock(&self, body: &[u8]) -> Result<(), String> {
        let Rate { rate } = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        if rate < 0.0 {
            return Err("rate must not be negative".to_owned());
        }
        self.set_rate(rate);
        Ok(())
    }

    fn change_settings(&self, body: &[u8]) -> Result<(), String> {
        let settings: BTreeMap<String, Value> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let mut state = self.state();
        for (name, value) in settings {
            let invalid = |e: serde_json::Error| format!("{name}: {e}");
            match name.as_str() {
                "senders" => state.senders = serde_json::from_value(value).map_err(invalid)?,
                "balance" => state.balance = serde_json::from_value(value).map_err(invalid)?,
                "limit" => state.limit = serde_json::from_value(value).map_err(invalid)?,
                "callback" => {
                    let for_all = |url| Some(BTreeMap::from([(String::new(), url)]));
                    let by_product: Option<BTreeMap<String, Url>> = match value {
                        Value::String(_) => {
                            for_all(serde_json::from_value::<CallbackUrl>(value).map_err(invalid)?.url()?)
                        }
                        value => serde_json::from_value::<Option<BTreeMap<String, CallbackUrl>>>(value)
                            .map_err(invalid)?
                            .map(|urls| {
                                urls.into_iter().map(|(p, text)| Ok((p, text.url()?))).collect::<Result<_, String>>()
                            })
                            .transpose()?,
                    };
                    state.callbacks = by_product.unwrap_or_default();
                }
                _ => return Err(format!("there is no setting {name}; there are callback, senders, balance and limit")),
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct CallbackUrl(String);

impl CallbackUrl {
    fn url(&self) -> Result<Url, String> {
        Url::parse(&self.0).map_err(|e| format!("callback: {e}"))
    }
}

/// For the vendors' APIs.
impl VendorSimulator {
    /// Returns the next sequence number, from 1.
    pub(super) fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.last_number += 1;
        state.last_number
    }

    pub(super) fn is_registered(&self, sender: &str) -> bool {
        self.state().senders.as_ref().map_or(sender != UNREGISTERED_SENDER, |senders| senders.contains(sender))
    }

    /// Returns the number of messages that are still paid for.
    pub(super) fn balance(&self) -> u64 {
        self.state().balance.unwrap_or(1_000_000)
    }

    /// Takes one message from the balance. Returns false if nothing is left.
    fn pay(&self) -> bool {
        let mut state = self.state();
        match &mut state.balance {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => (),
        }
        true
    }

    /// Returns whether this is the first use of a key within `within`.
    pub(super) fn first_use(&self, key: &str, within: TimeDelta) -> bool {
        let now = self.now();
        let mut state = self.state();
        state.used_keys.retain(|_, at| now - *at < within);
        if state.used_keys.len() >= MAX_REMEMBERED {
            state.used_keys.clear();
        }
        state.used_keys.insert(key.to_owned(), now).is_none()
    }

    /// Returns why a message to this recipient is refused, if it is: a magic recipient, or no balance. Otherwise takes
    /// one message from the balance.
    pub(super) fn refusal_reason(&self, to: &str) -> Option<RefusalReason> {
        if let Some(Effect::Refuse(reason)) = magic::find(to).map(|magic| magic.effect) {
            return Some(reason);
        }
        (!self.pay()).then_some(RefusalReason::Balance)
    }

    /// Answers a valid request by the script, the limits and its magic recipients.
    ///
    /// `recipients`: each with its text; `accept`: accepts the messages and makes the response.
    pub(super) async fn answer_with(
        &self,
        recipients: &[(&str, &str)],
        accept: impl FnOnce() -> Response<Full<Bytes>>,
    ) -> ServiceResult {
        let refuse = self.0.profile.refuse;
        let behaviour = match self.next_behaviour(recipients) {
            Ok(behaviour) => behaviour,
            Err(refusal) => return Ok(refuse(refusal)),
        };
        match behaviour {
            Behaviour::Ok => {
                let answer = accept();
                if recipients.iter().any(|(to, _)| receipt_plan(to) == Some(ReceiptPlan::Early)) {
                    let now = micros(self.state().time.now());
                    self.send_receipts_until(now).await;
                }
                Ok(answer)
            }
            Behaviour::Hang => {
                let _unheard = accept();
                // This future is dropped when the client closes the connection.
                self.0.shutdown.stopping().await;
                Err(ConnectionCut)
            }
            Behaviour::Cut => {
                let _unheard = accept();
                Err(ConnectionCut)
            }
            Behaviour::CutBefore => Err(ConnectionCut),
            Behaviour::Garbage => Ok(super::text_response(StatusCode::OK, "<html><body>It works!</body></html>")),
            Behaviour::Limit { retry_after } => {
                let mut limited = refuse(RequestRefusal::Limited);
                limited.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
                Ok(limited)
            }
            Behaviour::Fail { status, text } => Ok(refuse(RequestRefusal::Scripted(status, &text))),
        }
    }

    fn next_behaviour(&self, recipients: &[(&str, &str)]) -> Result<Behaviour, RequestRefusal<'static>> {
        if self.is_over_limit() {
            return Ok(Behaviour::Limit { retry_after: 1 });
        }
        for (to, text) in recipients {
            match magic::find(to).map(|magic| magic.effect) {
                Some(Effect::Refuse(RefusalReason::Credentials)) => return Err(RequestRefusal::Credentials),
                Some(Effect::Fault(fault)) if self.is_odd_time(&format!("{to} {text}")) => {
                    return Ok(match fault {
                        RequestFault::Cut => Behaviour::Cut,
                        RequestFault::Hang => Behaviour::Hang,
                        RequestFault::CutBefore => Behaviour::CutBefore,
                        RequestFault::Limit => Behaviour::Limit { retry_after: 1 },
                    });
                }
                _ => (),
            }
        }
        Ok(self.0.control.next_behaviour())
    }

    /// Returns whether a key is seen for the first, third, fifth … time.
    fn is_odd_time(&self, key: &str) -> bool {
        let mut state = self.state();
        if state.faulted.remove(key) {
            return false;
        }
        if state.faulted.len() >= MAX_REMEMBERED {
            state.faulted.clear();
        }
        state.faulted.insert(key.to_owned())
    }

    /// Returns whether the rate limit is used up. If not, counts this request.
    fn is_over_limit(&self) -> bool {
        let now = self.now();
        let mut state = self.state();
        let Some(limit) = state.limit else { return false };
        let window = TimeDelta::seconds(limit.seconds.into());
        while state.request_times.front().is_some_and(|at| now - *at >= window) {
            state.request_times.pop_front();
        }
        let full = state.request_times.len() >= limit.requests;
        if !full {
            state.request_times.push_back(now);
        }
        full
    }

    /// Records an accepted message, and schedules its receipts.
    pub(super) fn accept(&self, taken: AcceptedMessage) {
        self.0.control.record(taken.clone(), taken.text.len());
        let state = MessageState { changed_at: taken.at, result: MessageResult::Pending, message: taken };
        let needs_app_user = (self.0.profile.needs_app_user)(&state.message.kind);
        let planned = planned_receipts(receipt_plan(&state.message.to), needs_app_user);
        let mut vendor_state = self.state();
        let now = vendor_state.time.now();
        for PlannedReceipt { after_s, result, changes_result, sent } in planned {
            let event_id = format!("{}-{result:?}", state.message.id);
            let events = vec![ReceiptEvent { event_id, state: MessageState { result: *result, ..state.clone() } }];
            vendor_state.last_number += 1;
            let key = (micros(now + after_s), vendor_state.last_number);
            vendor_state
                .scheduled
                .insert(key, ScheduledReceipts { events, changes_result: *changes_result, sent: *sent, tries: 0 });
        }
        vendor_state.messages.insert(state.message.id.clone(), state);
        if vendor_state.messages.len() > MAX_MESSAGES {
            vendor_state.messages.pop_first();
        }
        drop(vendor_state);
        self.0.wake.notify_one();
    }

    /// Returns the stored messages that match, sorted by id.
    pub(super) fn find(&self, wanted: impl Fn(&MessageState) -> bool) -> Vec<MessageState> {
        self.state().messages.values().filter(|state| wanted(state)).cloned().collect()
    }
}

/// The receipts.
impl VendorSimulator {
    async fn send_receipts_when_due(self) {
        loop {
            let pause = {
                let state = self.state();
                state.scheduled.first_key_value().and_then(|((due, _), _)| state.time.until(*due))
            };
            // Nothing is scheduled: an hour instead of for ever is harmless.
            let pause = pause.unwrap_or(Duration::from_hours(1));
            tokio::select! {
                () = self.0.wake.notified() => continue,
                () = tokio::time::sleep(pause) => (),
                () = self.0.shutdown.stopping() => return,
            }
            let now = micros(self.state().time.now());
            self.send_receipts_until(now).await;
        }
    }

    async fn send_receipts_until(&self, until: u64) {
        let _in_order = self.0.sending.lock().await;
        for (url, scheduled) in self.take_due(until) {
            let Some(receipts) = &self.0.profile.callbacks else { return };
            let callback = (receipts.build)(&scheduled.events, scheduled.tries, self.now());
            let mut headers = HeaderMap::new();
            for (name, value) in callback.headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
            let answered =
                self.0.http.post_json(&url, callback.body.to_string().into_bytes(), headers, DecidedBy::Status).await;
            if answered.is_ok_and(|answer| answer.status == 200) {
                continue;
            }
            if let Some(pause) = receipts.retry_after_s.get(scheduled.tries as usize) {
                let mut state = self.state();
                state.last_number += 1;
                let key = (micros(state.time.now() + pause), state.last_number);
                state
                    .scheduled
                    .insert(key, ScheduledReceipts { tries: scheduled.tries + 1, changes_result: false, ..scheduled });
            }
        }
    }

    /// Takes out the receipts that are due by `due`, applies their results, and groups those that are sent into
    /// callbacks.
    fn take_due(&self, due: u64) -> Vec<(Url, ScheduledReceipts)> {
        let now = self.now();
        let mut state = self.state();
        let rest = state.scheduled.split_off(&(due.saturating_add(1), 0));
        let due_now = std::mem::replace(&mut state.scheduled, rest);
        let mut callbacks: Vec<(Url, ScheduledReceipts)> = Vec::new();
        for mut scheduled in due_now.into_values() {
            for event in scheduled.events.iter_mut().filter(|_| scheduled.tries == 0) {
                event.state.changed_at = now;
                if let Some(message) =
                    state.messages.get_mut(&event.state.message.id).filter(|_| scheduled.changes_result)
                {
                    (message.result, message.changed_at) = (event.state.result, now);
                }
            }
            let Some(receipts) = self.0.profile.callbacks.as_ref().filter(|_| scheduled.sent) else { continue };
            let product = scheduled.events.first().and_then(|event| (receipts.product)(&event.state.message.kind));
            let Some(product) = product else { continue };
            let Some(url) = state.callbacks.get(product).or(state.callbacks.get("")).cloned() else { continue };
            match callbacks.last_mut() {
                Some((to, callback)) if *to == url && callback.can_join(&scheduled, receipts.max_events) => {
                    callback.events.append(&mut scheduled.events)
                }
                _ => callbacks.push((url, scheduled)),
            }
        }
        callbacks
    }
}

impl ScheduledReceipts {
    /// Returns whether more receipts fit into this callback. A retry stays as it was, and the same receipt twice goes
    /// in two callbacks.
    fn can_join(&self, other: &ScheduledReceipts, max_events: usize) -> bool {
        let contains = |id: &str| self.events.iter().any(|event| event.event_id == id);
        self.tries == 0
            && other.tries == 0
            && self.events.len() + other.events.len() <= max_events
            && !other.events.iter().any(|event| contains(&event.event_id))
    }
}

/// One receipt of a message, relative to its acceptance.
struct PlannedReceipt {
    after_s: f64,
    result: MessageResult,
    changes_result: bool,
    sent: bool,
}

const fn receipt_after(after: f64, end: MessageResult) -> PlannedReceipt {
    PlannedReceipt { after_s: after, result: end, changes_result: true, sent: true }
}

/// Returns the receipts of a message. `needs_app_user`: it reaches only users of an app.
fn planned_receipts(plan: Option<ReceiptPlan>, needs_app_user: bool) -> &'static [PlannedReceipt] {
    const DELIVERED: PlannedReceipt = receipt_after(RECEIPT_AFTER_S, MessageResult::Delivered);
    match plan {
        None => &[DELIVERED],
        Some(ReceiptPlan::Late) => const { &[receipt_after(LATE_RECEIPT_AFTER_S, MessageResult::Delivered)] },
        Some(ReceiptPlan::Never) => &[],
        Some(ReceiptPlan::Expired) => const { &[receipt_after(EXPIRED_AFTER_S, MessageResult::Expired)] },
        Some(ReceiptPlan::Failed) => const { &[receipt_after(RECEIPT_AFTER_S, MessageResult::Failed)] },
        Some(ReceiptPlan::NotAUser) if needs_app_user => {
            const { &[receipt_after(RECEIPT_AFTER_S, MessageResult::NotAUser)] }
        }
        Some(ReceiptPlan::NotAUser) => &[DELIVERED],
        Some(ReceiptPlan::Early) => const { &[receipt_after(0.0, MessageResult::Delivered)] },
        Some(ReceiptPlan::Twice) => {
            const {
                &[
                    DELIVERED,
                    PlannedReceipt {
                        changes_result: false,
                        ..receipt_after(SECOND_RECEIPT_AFTER_S, MessageResult::Delivered)
                    },
                ]
            }
        }
        Some(ReceiptPlan::Reordered) => {
            const {
                &[
                    DELIVERED,
                    PlannedReceipt {
                        changes_result: false,
                        ..receipt_after(SECOND_RECEIPT_AFTER_S, MessageResult::Pending)
                    },
                ]
            }
        }
        Some(ReceiptPlan::Changed) => {
            const {
                &[
                    receipt_after(RECEIPT_AFTER_S, MessageResult::Failed),
                    receipt_after(SECOND_RECEIPT_AFTER_S, MessageResult::Delivered),
                ]
            }
        }
        Some(ReceiptPlan::Lost) => const { &[PlannedReceipt { sent: false, ..DELIVERED }] },
    }
}

/// Returns the unusual receipts of a magic recipient.
pub(super) fn receipt_plan(to: &str) -> Option<ReceiptPlan> {
    match magic::find(to)?.effect {
        Effect::Accept(plan) => Some(plan),
        Effect::Refuse(_) | Effect::Fault(_) => None,
    }
}

/// Makes a JSON response.
pub(super) fn json_response(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    super::response(status, "application/json;charset=UTF-8", body.to_string().into_bytes())
}

/// Returns whether digits are a Korean mobile or personal number: 01012345678, 050712345678.
pub(super) fn is_recipient(digits: &str) -> bool {
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    let mobile = digits.starts_with("01") && matches!(digits.len(), 10 | 11);
    all && (mobile || digits.starts_with("050") && matches!(digits.len(), 11 | 12))
}

/// Returns whether digits can be a sender: eight to eleven, a landline with its area code.
pub(super) fn is_sender(digits: &str) -> bool {
    digits.bytes().all(|b| b.is_ascii_digit()) && (8..=11).contains(&digits.len())
}

/// Returns a field of a JSON object that is a text and not empty.
pub(super) fn text_field<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// One of the two services of seed 001: one message in a JSON request, authenticated by HTTP Basic.
pub(super) struct SeedService {
    pub path: &'static str,
    pub username: &'static str,
    pub password: &'static str,
    /// The JSON fields of the recipient and the text.
    pub recipient_field: &'static str,
    pub text_field: &'static str,
    /// Returns the error code of a text that is not accepted.
    pub text_error: fn(&str) -> Option<&'static str>,
    /// The prefix of message ids.
    pub id_prefix: &'static str,
    /// Whether it reaches every number, or only users of the vendor's app.
    pub reaches_everyone: bool,
}

/// Makes a refusal of the seed's services.
pub(super) fn refused(status: u16, code: &str) -> Response<Full<Bytes>> {
    json_response(status, &serde_json::json!({ "code": code, "message": code.replace('_', " ") }))
}

pub(super) fn refused_by_status(reason: RefusalReason) -> Option<Response<Full<Bytes>>> {
    match reason {
        RefusalReason::Address => Some(refused(404, "no_such_recipient")),
        RefusalReason::Internal => Some(refused(503, "unavailable")),
        RefusalReason::OptedOut => Some(refused(422, "opted_out")),
        RefusalReason::Balance => Some(refused(402, "no_balance")),
        // `next_behaviour` refuses the whole request before.
        RefusalReason::Credentials => None,
    }
}

pub(super) fn refuse_by_status(refusal: RequestRefusal<'_>) -> Response<Full<Bytes>> {
    match refusal {
        RequestRefusal::Credentials => refused(401, "unauthorized"),
        RequestRefusal::Limited => refused(429, "too_many_requests"),
        RequestRefusal::Scripted(status, code) => refused(status, code),
    }
}

impl SeedService {
    /// Answers a request to the service.
    pub async fn respond(&self, vendor: VendorSimulator, call: ApiRequest) -> ServiceResult {
        let recipient = match self.check(&call) {
            Ok(recipient) => recipient,
            Err(refusal) => return Ok(*refusal),
        };
        let (to, text) = (recipient.0.as_str(), recipient.1.as_str());
        let accept = || {
            if let Some(refusal) = self.refusal(&vendor, to) {
                return refusal;
            }
            let (id, place) = (format!("{}-{:012}", self.id_prefix, vendor.next_number()), 1);
            vendor.accept(AcceptedMessage {
                id: id.clone(),
                request: id.clone(),
                place,
                kind: self.id_prefix.to_owned(),
                from: None,
                to: to.to_owned(),
                subject: None,
                text: text.to_owned(),
                reference: None,
                at: vendor.now(),
                options: Value::Null,
            });
            json_response(200, &serde_json::json!({ "messageId": id }))
        };
        vendor.answer_with(&[(to, text)], accept).await
    }

    fn refusal(&self, vendor: &VendorSimulator, to: &str) -> Option<Response<Full<Bytes>>> {
        if !self.reaches_everyone && receipt_plan(to) == Some(ReceiptPlan::NotAUser) {
            return Some(refused(404, "not_a_user"));
        }
        refused_by_status(vendor.refusal_reason(to)?)
    }

    /// Checks a request. Returns recipient and text, or the refusal.
    fn check(&self, call: &ApiRequest) -> Result<(String, String), Box<Response<Full<Bytes>>>> {
        let refusal = |status, code| Box::new(refused(status, code));
        if call.path != self.path {
            return Err(refusal(404, "not_found"));
        }
        if call.method != Method::POST {
            return Err(refusal(405, "method_not_allowed"));
        }
        let expected = data_encoding::BASE64.encode(format!("{}:{}", self.username, self.password).as_bytes());
        let given = call.header("authorization").and_then(|value| value.split_once(' '));
        if !given.is_some_and(|(scheme, secret)| scheme.eq_ignore_ascii_case("basic") && secret == expected) {
            let mut unknown = refused(401, "unauthorized");
            unknown.headers_mut().insert("www-authenticate", HeaderValue::from_static("Basic"));
            return Err(Box::new(unknown));
        }
        if !call.is_json() {
            return Err(refusal(415, "unsupported_media_type"));
        }
        let body: Value = serde_json::from_slice(&call.body).map_err(|_| refusal(400, "not_json"))?;
        let (to, content) = (text_field(&body, self.recipient_field), text_field(&body, self.text_field));
        let to = to.filter(|to| is_hyphenated(to)).ok_or_else(|| refusal(400, "invalid_recipient"))?;
        let content = content.ok_or_else(|| refusal(400, "no_text"))?;
        match (self.text_error)(content) {
            Some(code) => Err(refusal(400, code)),
            None => Ok((to.to_owned(), content.to_owned())),
        }
    }
}

/// Returns whether a number is written 010-1234-5678.
fn is_hyphenated(to: &str) -> bool {
    let parts: Vec<&str> = to.split('-').collect();
    let [head, middle, last] = parts.as_slice() else { return false };
    let lengths = (3..=4).contains(&head.len()) && (3..=4).contains(&middle.len()) && last.len() == 4;
    lengths && is_recipient(&parts.concat())
}

/// What the simulators' tests share.
#[cfg(test)]
pub(super) mod testing {
    use std::collections::VecDeque;

    use super::super::testing::{BUDGET, rustls_provider};
    use super::*;

    /// A simulator, an HTTP client that calls it, and a server that receives its callbacks.
    pub struct Caller {
        pub vendor: VendorSimulator,
        pub hub: Hub,
        _shutdown: Shutdown,
        client: reqwest::Client,
    }

    /// The server of callbacks. Each is recorded as path with query, headers and JSON.
    #[derive(Clone, Default)]
    pub struct Hub {
        received: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
        statuses: Arc<Mutex<VecDeque<u16>>>,
    }

    impl Hub {
        pub fn take_received(&self) -> Vec<(String, HeaderMap, Value)> {
            std::mem::take(&mut self.received.lock().unwrap())
        }

        /// Sets the statuses of the next responses; then 200.
        pub fn respond_with(&self, statuses: &[u16]) {
            self.statuses.lock().unwrap().extend(statuses);
        }

        async fn receive(self, request: Request<Incoming>) -> ServiceResult {
            let (parts, body) = request.into_parts();
            let body = super::super::read_body(Request::new(body)).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap();
            self.received.lock().unwrap().push((parts.uri.to_string(), parts.headers, body));
            let status = self.statuses.lock().unwrap().pop_front().unwrap_or(200);
            Ok(super::super::text_response(StatusCode::from_u16(status).unwrap(), "heard"))
        }

        async fn start(shutdown: &Shutdown) -> (Hub, SocketAddr) {
            let hub = Hub::default();
            let (hearing, stopping) = (hub.clone(), shutdown.clone());
            let session = move |stream| {
                let hub = hearing.clone();
                super::super::serve_http(stream, stopping.clone(), move |request| hub.clone().receive(request))
            };
            (hub, super::super::testing::peer(shutdown, session).await)
        }
    }

    impl Caller {
        /// Starts a simulator whose clock stands still.
        pub async fn at<S>(start: fn(SimulatorSetup, Shutdown) -> S) -> Caller
        where
            S: Future<Output = Result<VendorSimulator>>,
        {
            rustls_provider();
            let shutdown = Shutdown::new();
            let (hub, address) = Hub::start(&shutdown).await;
            let callback = Some(format!("http://{address}/receipts?key=k"));
            let setup = SimulatorSetup { callback, rate: 0.0, ..SimulatorSetup::default() };
            let client = reqwest::Client::builder().no_proxy().timeout(BUDGET).tls_certs_only([]).build().unwrap();
            Caller { vendor: start(setup, shutdown.clone()).await.unwrap(), _shutdown: shutdown, hub, client }
        }

        /// Sends a request. Returns status and JSON, or `None` if the connection was closed.
        pub async fn ask(
            &self,
            method: Method,
            path: &str,
            headers: &[(&str, &str)],
            body: &str,
        ) -> Option<(u16, Value)> {
            let url = format!("{}{path}", self.vendor.url());
            let mut request = self.client.request(method, url).body(body.to_owned());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            let text = answer.text().await.ok()?;
            Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
        }

        pub async fn set(&self, path: &str, body: Value) {
            let done = self.ask(Method::POST, path, &[], &body.to_string()).await;
            assert_eq!(done, Some((200, Value::from("ok"))), "{path} {body}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::gateway;
    use super::testing::Caller;
    use super::*;
    use crate::model::signature;

    async fn caller() -> Caller {
        Caller::at(|setup, shutdown| async move { gateway::start(setup, &shutdown).await }).await
    }

    async fn send(caller: &Caller, to: &str, reference: &str) -> Option<(u16, Value)> {
        let body =
            json!({ "id": "d", "reference": reference, "channel": "SMS", "to": to, "body": reference }).to_string();
        let signed = signature::headers(gateway::SECRET, None, "d", Clock::host_now().timestamp(), body.as_bytes());
        let mut headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("content-type", "application/json"));
        caller.ask(Method::POST, gateway::PATH, &headers, &body).await
    }

    /// The references and statuses of each callback.
    fn told(caller: &Caller) -> Vec<Vec<(String, String)>> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let news = |(_, _, body): (String, HeaderMap, Value)| {
            let receipts = body["receipts"].as_array().unwrap().clone();
            receipts.iter().map(|receipt| (word(&receipt["reference"]), word(&receipt["status"]))).collect()
        };
        caller.hub.take_received().into_iter().map(news).collect()
    }

    fn said(reference: &str, status: &str) -> (String, String) {
        (reference.to_owned(), status.to_owned())
    }

    /// Each magic recipient has its own receipts, sent in the order in which they are due.
    #[tokio::test]
    async fn magic_recipients_have_their_receipts() {
        let caller = caller().await;
        for to in ["+821012345678", "+821000000003", "+821000000004", "+821000000007"] {
            assert_eq!(send(&caller, to, to).await.unwrap().0, 202);
        }
        for number in [8, 9, 15, 16, 17, 18] {
            let to = format!("+8210000000{number:02}");
            assert_eq!(send(&caller, &to, &to).await.unwrap().0, 202);
        }
        assert!(told(&caller).is_empty(), "nothing while the clock stands still");
        caller.vendor.send_all_receipts().await;
        let n = |number: u8| format!("+8210000000{number:02}");
        let delivered = |number: u8| said(&n(number), "DELIVERED");
        assert_eq!(
            told(&caller),
            [
                // The same receipt twice in one callback would be no repetition.
                vec![
                    said("+821012345678", "DELIVERED"),
                    said(&n(8), "FAILED"),
                    delivered(9),
                    delivered(15),
                    delivered(16),
                    said(&n(17), "FAILED"),
                ],
                vec![delivered(15), said(&n(16), "ACCEPTED"), delivered(17), delivered(3), said(&n(7), "EXPIRED"),],
            ]
        );
        let ends: Vec<MessageResult> = caller.vendor.find(|_| true).iter().map(|state| state.result).collect();
        use MessageResult::{Delivered, Expired, Failed, Pending};
        let expected = [Delivered, Delivered, Pending, Expired, Failed];
        assert_eq!(
            ends,
            [&expected[..], &[Delivered; 5]].concat(),
            "-0004 stays pending; the result of -0018 can be polled"
        );
        // An early receipt arrives before the response.
        assert_eq!(send(&caller, &n(14), "early").await.unwrap().0, 202);
        assert_eq!(told(&caller), [[said("early", "DELIVERED")]]);
    }

    /// A callback that is not answered with 200 is repeated as often as the vendor repeats it.
    #[tokio::test]
    async fn unanswered_receipts_are_repeated() {
        let caller = caller().await;
        send(&caller, "+821012345678", "x").await;
        caller.hub.respond_with(&[500, 202, 404, 500, 500]);
        for _ in 0..6 {
            caller.vendor.send_all_receipts().await;
        }
        assert_eq!(told(&caller), vec![[said("x", "DELIVERED")]; 4]);
    }

    /// `/_clock` and `/_settings` change the clock's rate and the callback URL.
    #[tokio::test]
    async fn clock_and_callback_are_set_over_http() {
        let caller = caller().await;
        caller.set("/_clock", json!({ "rate": 1e9 })).await;
        send(&caller, "+821000000007", "25 hours").await;
        while caller.vendor.find(|state| state.result == MessageResult::Expired).is_empty() {
            tokio::task::yield_now().await;
        }
        for wrong in [json!({}), json!({ "rate": -1 }), json!({ "rate": 1, "x": 1 })] {
            let refused = caller.ask(Method::POST, "/_clock", &[], &wrong.to_string()).await.unwrap();
            assert_eq!(refused.0, 400, "{wrong}");
        }
        for wrong in [json!([]), json!({ "x": 1 }), json!({ "callback": "no" }), json!({ "limit": 1 })] {
            let refused = caller.ask(Method::POST, "/_settings", &[], &wrong.to_string()).await.unwrap();
            assert_eq!(refused.0, 400, "{wrong}");
        }
    }

    /// A magic request fails once for each text; the records show whether it was accepted.
    #[tokio::test]
    async fn magic_request_fails_every_other_time() {
        let caller = caller().await;
        for (number, first, taken) in [(5, None, 1), (19, None, 0), (11, Some(429), 0)] {
            let (to, before) = (format!("+8210000000{number:02}"), caller.vendor.accepted_count());
            let status = |answer: Option<(u16, Value)>| answer.map(|(status, _)| status);
            assert_eq!(status(send(&caller, &to, "a").await), first, "{to}");
            assert_eq!(caller.vendor.accepted_count(), before + taken, "{to}");
            assert_eq!(status(send(&caller, &to, "a").await), Some(202), "{to}");
            assert_eq!(status(send(&caller, &to, "b").await), first, "another text goes wrong anew");
            assert_eq!(caller.vendor.accepted_count(), before + 2 * taken + 1, "{to}");
        }
        caller.vendor.script(Behaviour::Fail { status: 500, text: "down".into() }, 1);
        assert_eq!(
            send(&caller, "+821012345678", "x").await,
            Some((500, json!({ "code": "down", "message": "down" })))
        );
        for (number, status) in [(1, 404), (2, 503), (10, 422), (12, 401), (13, 402)] {
            assert_eq!(send(&caller, &format!("+8210000000{number:02}"), "x").await.unwrap().0, status);
        }
    }

    /// Balance and rate limit run out, and can be reset.
    #[tokio::test]
    async fn balance_and_rate_limit_run_out() {
        let caller = caller().await;
        let send = async || send(&caller, "+821012345678", "x").await.unwrap().0;
        caller.set("/_settings", json!({ "balance": 1 })).await;
        assert_eq!([send().await, send().await], [202, 402]);
        caller.set("/_settings", json!({ "balance": null, "limit": { "requests": 2, "seconds": 60 } })).await;
        assert_eq!([send().await, send().await, send().await], [202, 202, 429]);
        caller.set("/_settings", json!({ "limit": null })).await;
        assert_eq!(send().await, 202);
    }

    /// A request that hangs is accepted.
    #[tokio::test]
    async fn hanging_request_is_accepted() {
        let caller = caller().await;
        let hanging = send(&caller, "+821000000006", "x");
        tokio::select! {
            answer = hanging => panic!("answered {answer:?}"),
            () = async { while caller.vendor.accepted_count() == 0 { tokio::task::yield_now().await } } => (),
        }
        assert_eq!(send(&caller, "+821000000006", "x").await.unwrap().0, 202);
    }

    /// Wrong, late and missing signatures are refused.
    #[tokio::test]
    async fn gateway_refuses_wrong_signatures() {
        let caller = caller().await;
        let body = json!({ "id": "d", "channel": "SMS", "to": "+821012345678", "body": "x" }).to_string();
        let now = Clock::host_now().timestamp();
        for (secret, at) in [
            (gateway::SECRET, now - 301),
            (gateway::SECRET, now + 301),
            ("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", now),
        ] {
            let signed = signature::headers(secret, None, "d", at, body.as_bytes());
            let headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(caller.ask(Method::POST, gateway::PATH, &headers, &body).await.unwrap().0, 401);
        }
        assert_eq!(caller.ask(Method::POST, gateway::PATH, &[], &body).await.unwrap().0, 401);
        assert_eq!(caller.vendor.accepted_count(), 0);
    }
}
