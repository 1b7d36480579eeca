//! What the simulators of channels' vendors share: the ledger of what was taken, what is told of it later and when, magic
//! recipients, a clock that can run faster, and what a vendor holds against a caller (limits, balance, senders).
//!
//! Beside the desk's doors there are, over HTTP:
//!
//! - `POST /_clock {"rate": 60}`: delays pass so many times faster; 0 stops them.
//! - `POST /_receipts`: tells now what is to be told, however late it is due.
//! - `POST /_settings {"callback": URL, "senders": ["0212345678"], "balance": 3, "limit": {"requests": 100, "seconds": 60}}`:
//!   where receipts go (by product: `{"sms": URL, …}`), which senders are registered, how many messages are still paid for,
//!   how many requests are taken in a time. What is not named stays as it is; null takes it back.

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

use super::magic::{self, Does, How, ReceiptPlan, Why};
use super::{Answered, Behaviour, Cut, Desk};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::provider::http::{Common, Connections, DecidedBy, Http};
use crate::shutdown::Shutdown;

/// What is remembered to be asked for; the oldest goes.
const MESSAGES: usize = 200_000;
/// Magic recipients in the middle of their two turns, and signatures that were used; beyond so many all are forgotten.
const REMEMBERED: usize = 10_000;
/// How long whoever is told may take.
const CALL: Duration = Duration::from_secs(10);
/// The sender that is never registered, where no list says which are.
pub const STRANGER: &str = "0200000000";

/// When things are told, in seconds of the vendor's time after a message was taken.
const SOON: f64 = 2.0;
const AFTERWARDS: f64 = 4.0;
const LATE: f64 = 600.0;
const EXPIRED: f64 = 25.0 * 3600.0;

/// How a simulator is set up.
#[derive(Clone)]
pub struct Setup {
    /// 0 takes any that is free.
    pub port: u16,
    /// Where receipts go.
    pub callback: Option<String>,
    /// How many times faster delays pass; 0: only when told to (`tell`).
    pub rate: f64,
    /// What its dates are read from. Those of signatures are compared with this machine's own clock.
    pub clock: Clock,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { port: 0, callback: None, rate: 1.0, clock: Clock::system() }
    }
}

/// A message that was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The vendor's own id of the message.
    pub id: String,
    /// Of the request or group it came in, where the vendor has such ids, and its place there, from 1.
    pub request: String,
    pub place: usize,
    /// The vendor's word for what it is.
    pub kind: String,
    pub from: Option<String>,
    pub to: String,
    pub subject: Option<String>,
    /// As the vendor keeps it: cut or with question marks, where it does such things.
    pub text: String,
    /// What it was asked to repeat.
    pub reference: Option<String>,
    pub at: DateTime<Utc>,
    /// The rest that the vendor keeps.
    pub options: Value,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Pending,
    Delivered,
    Failed,
    Expired,
    NotAUser,
}

/// A message as it stands.
#[derive(Debug, Clone)]
pub(super) struct MessageState {
    pub taken: Taken,
    pub end: End,
    /// Of the last change.
    pub at: DateTime<Utc>,
}

/// Something that is told about a message.
#[derive(Debug, Clone)]
pub(super) struct News {
    /// The same however often it is told.
    pub event: String,
    pub standing: MessageState,
}

/// One request to whoever is told.
pub(super) struct Sheet {
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

/// Why the whole request is refused.
pub(super) enum No<'a> {
    Credentials,
    Limited,
    Scripted(u16, &'a str),
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What makes one vendor another.
pub(super) struct Trade {
    pub name: &'static str,
    /// How it usually says no, for scripts that do not say how.
    pub refusal: (u16, &'static str),
    pub respond: fn(Vendor, Call) -> Pending<Answered>,
    pub refuse: fn(No<'_>) -> Response<Full<Bytes>>,
    /// Whether this kind of message can find that its recipient does not use the channel.
    pub by_users: fn(&str) -> bool,
    pub receipts: Option<Receipts>,
}

/// How it tells what became of messages.
pub(super) struct Receipts {
    /// Which of its callbacks is for this kind of message, empty where there is one for all; none: it is not told.
    pub product: fn(&str) -> Option<&'static str>,
    pub envelope: fn(&[News], u32, DateTime<Utc>) -> Sheet,
    /// News in one request.
    pub at_once: usize,
    /// Seconds before each further try, unless the answer is 200.
    pub again: &'static [f64],
}

/// A request as it came.
pub(super) struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    /// A header's one value, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn is_json(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.split(';').next() == Some("application/json"))
    }

    /// The last value of a name in the query, where it has one.
    pub fn asked(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(n, value)| n == name && !value.is_empty()).last().map(|(_, value)| value.into_owned())
    }

    pub fn number(&self, name: &str, default: usize) -> usize {
        self.asked(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
}

/// A vendor's simulator.
#[derive(Clone)]
pub struct Vendor(Arc<Inner>);

struct Inner {
    trade: &'static Trade,
    address: SocketAddr,
    desk: Desk<Taken>,
    clock: Clock,
    shutdown: Shutdown,
    http: Http,
    state: Mutex<State>,
    /// There is something to tell, or the clock has another pace.
    wake: Notify,
    /// Held while something is told: in order, and so that who waits for it knows when it was.
    telling: tokio::sync::Mutex<()>,
}

struct State {
    pace: Pace,
    callbacks: BTreeMap<String, Url>,
    senders: Option<HashSet<String>>,
    balance: Option<u64>,
    limit: Option<Limit>,
    requests: VecDeque<DateTime<Utc>>,
    /// Magic recipients that went wrong once and are to be in order now.
    tried: HashSet<String>,
    /// Keys of requests that may come once, and when they came.
    used: HashMap<String, DateTime<Utc>>,
    numbers: u64,
    messages: BTreeMap<String, MessageState>,
    /// By when it is due, in microseconds of the vendor's time, and by order.
    later: BTreeMap<(u64, u64), Later>,
}

/// What happens later.
struct Later {
    news: Vec<News>,
    /// Whether the messages are from then on as the news say.
    changes: bool,
    told: bool,
    tries: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    requests: usize,
    seconds: u32,
}

/// The vendor's time, which runs `rate` times as fast as ours.
struct Pace {
    rate: f64,
    since: Instant,
    before: f64,
}

impl Pace {
    fn new(rate: f64, before: f64) -> Pace {
        Pace { rate, since: Instant::now(), before }
    }

    fn now(&self) -> f64 {
        self.before + self.since.elapsed().as_secs_f64() * self.rate
    }

    /// Our time until then; none while it stands still.
    fn until(&self, due: u64) -> Option<Duration> {
        let left = (seconds(due) - self.now()).max(0.0) / self.rate;
        Duration::try_from_secs_f64(left).ok()
    }
}

fn micros(seconds: f64) -> u64 {
    // A number that does not fit becomes the nearest that does.
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

impl Vendor {
    pub(super) async fn start(trade: &'static Trade, setup: Setup, shutdown: &Shutdown) -> Result<Vendor> {
        let listener = super::listen(setup.port).await?;
        let state = State {
            pace: Pace::new(setup.rate, 0.0),
            callbacks: BTreeMap::new(),
            senders: None,
            balance: None,
            limit: None,
            requests: VecDeque::new(),
            tried: HashSet::new(),
            used: HashMap::new(),
            numbers: 0,
            messages: BTreeMap::new(),
            later: BTreeMap::new(),
        };
        let tls = setup.callback.as_deref().is_some_and(|url| url.starts_with("https:"));
        let vendor = Vendor(Arc::new(Inner {
            trade,
            address: super::bound(&listener)?,
            desk: Desk::new(),
            clock: setup.clock,
            shutdown: shutdown.clone(),
            http: Http::new(&Common::within(CALL), Connections::Kept, tls)?,
            state: Mutex::new(state),
            wake: Notify::new(),
            telling: tokio::sync::Mutex::new(()),
        }));
        if let Some(url) = setup.callback {
            vendor.call_back("", &url)?;
        }
        let session = {
            let vendor = vendor.clone();
            move |stream| {
                let vendor = vendor.clone();
                let shutdown = vendor.0.shutdown.clone();
                super::serve(stream, shutdown, move |request| vendor.clone().answer(request))
            }
        };
        shutdown.spawn(super::accept(listener, shutdown.clone(), session));
        shutdown.spawn(vendor.clone().tell_in_time());
        Ok(vendor)
    }

    pub fn name(&self) -> &'static str {
        self.0.trade.name
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// How many messages were taken.
    pub fn taken(&self) -> u64 {
        self.0.desk.taken()
    }

    /// The ledger: what was taken, in order of arrival.
    pub fn records(&self) -> Vec<Taken> {
        self.0.desk.records()
    }

    /// What to do with the next `times` requests that are in order, after what was scripted before.
    pub fn script(&self, behaviour: Behaviour, times: u32) {
        self.0.desk.script(behaviour, times);
    }

    /// Where receipts go from now on; a product of the vendor's by its word, or all with an empty one.
    pub fn call_back(&self, product: &str, url: &str) -> Result<()> {
        let url = Url::parse(url).map_err(|e| Error::Setup(format!("a callback of {}: {e}", self.name())))?;
        self.state().callbacks.insert(product.to_owned(), url);
        Ok(())
    }

    /// How fast delays pass from now on.
    pub fn set_rate(&self, rate: f64) {
        let mut state = self.state();
        state.pace = Pace::new(rate, state.pace.now());
        drop(state);
        self.0.wake.notify_one();
    }

    /// Tells all there is to tell, also what is not due; once, and in the order in which it is due. Afterwards it was heard,
    /// or is to be told again.
    pub async fn tell(&self) {
        self.tell_until(u64::MAX).await;
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request<Incoming>) -> Answered {
        let own = ["/_clock", "/_receipts", "/_settings"].contains(&request.uri().path());
        if !own && request.uri().path().starts_with("/_") {
            return Ok(super::control(&self.0.desk, self.0.trade.refusal, request).await);
        }
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        let Some(body) = super::body(Request::new(body)).await else {
            return Ok(super::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or was cut"));
        };
        let call = Call { method: parts.method, path, query, headers: parts.headers, body };
        if own { Ok(self.control(&call).await) } else { (self.0.trade.respond)(self.clone(), call).await }
    }

    async fn control(&self, call: &Call) -> Response<Full<Bytes>> {
        let done = match (&call.method, call.path.as_str()) {
            (&Method::POST, "/_clock") => self.pace(&call.body),
            (&Method::POST, "/_settings") => self.set(&call.body),
            (&Method::POST, _) => {
                self.tell().await;
                Ok(())
            }
            _ => Err("POST /_clock, POST /_settings and POST /_receipts".to_owned()),
        };
        match done {
            Ok(()) => super::text(StatusCode::OK, "ok"),
            Err(why) => super::text(StatusCode::BAD_REQUEST, &why),
        }
    }

    fn pace(&self, body: &[u8]) -> Result<(), String> {
        let Rate { rate } = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        if rate < 0.0 {
            return Err("no clock runs back".to_owned());
        }
        self.set_rate(rate);
        Ok(())
    }

    fn set(&self, body: &[u8]) -> Result<(), String> {
        let settings: BTreeMap<String, Value> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let mut state = self.state();
        for (name, value) in settings {
            let wrong = |e: serde_json::Error| format!("{name}: {e}");
            match name.as_str() {
                "senders" => state.senders = serde_json::from_value(value).map_err(wrong)?,
                "balance" => state.balance = serde_json::from_value(value).map_err(wrong)?,
                "limit" => state.limit = serde_json::from_value(value).map_err(wrong)?,
                "callback" => {
                    let one = |url| Some(BTreeMap::from([(String::new(), url)]));
                    let by_product: Option<BTreeMap<String, Url>> = match value {
                        Value::String(_) => one(serde_json::from_value::<Text>(value).map_err(wrong)?.url()?),
                        value => serde_json::from_value::<Option<BTreeMap<String, Text>>>(value)
                            .map_err(wrong)?
                            .map(|urls| {
                                urls.into_iter().map(|(p, text)| Ok((p, text.url()?))).collect::<Result<_, String>>()
                            })
                            .transpose()?,
                    };
                    state.callbacks = by_product.unwrap_or_default();
                }
                _ => return Err(format!("{name}: there are callback, senders, balance and limit")),
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Text(String);

impl Text {
    fn url(&self) -> Result<Url, String> {
        Url::parse(&self.0).map_err(|e| format!("callback: {e}"))
    }
}

/// What adapters' requests meet.
impl Vendor {
    /// A number that no other thing here has.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        state.numbers
    }

    pub(super) fn is_registered(&self, sender: &str) -> bool {
        self.state().senders.as_ref().map_or(sender != STRANGER, |senders| senders.contains(sender))
    }

    /// What is left to pay with.
    pub(super) fn left(&self) -> u64 {
        self.state().balance.unwrap_or(1_000_000)
    }

    /// Pays for one message.
    fn pay(&self) -> bool {
        let mut state = self.state();
        match &mut state.balance {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => (),
        }
        true
    }

    /// Whether this is the first request with a key that may come once in so long.
    pub(super) fn first_use(&self, key: &str, within: TimeDelta) -> bool {
        let now = self.now();
        let mut state = self.state();
        state.used.retain(|_, at| now - *at < within);
        if state.used.len() >= REMEMBERED {
            state.used.clear();
        }
        state.used.insert(key.to_owned(), now).is_none()
    }

    /// Why one recipient is refused whatever is sent to it.
    pub(super) fn refuses(&self, to: &str) -> Option<Why> {
        if let Some(Does::Refuse(why)) = magic::of(to).map(|magic| magic.does) {
            return Some(why);
        }
        (!self.pay()).then_some(Why::Balance)
    }

    /// Does with a request in order, to these recipients with these texts, what is due: `take` takes it and answers.
    pub(super) async fn act(
        &self,
        recipients: &[(&str, &str)],
        take: impl FnOnce() -> Response<Full<Bytes>>,
    ) -> Answered {
        let refuse = self.0.trade.refuse;
        let behaviour = match self.turn(recipients) {
            Ok(behaviour) => behaviour,
            Err(no) => return Ok(refuse(no)),
        };
        match behaviour {
            Behaviour::Ok => {
                let answer = take();
                if recipients.iter().any(|(to, _)| told(to) == Some(ReceiptPlan::Early)) {
                    let now = micros(self.state().pace.now());
                    self.tell_until(now).await;
                }
                Ok(answer)
            }
            Behaviour::Hang => {
                let _unheard = take();
                // Dropped when the client goes away.
                self.0.shutdown.stopping().await;
                Err(Cut)
            }
            Behaviour::Cut => {
                let _unheard = take();
                Err(Cut)
            }
            Behaviour::CutBefore => Err(Cut),
            Behaviour::Garbage => Ok(super::text(StatusCode::OK, "<html><body>It works!</body></html>")),
            Behaviour::Limit { retry_after } => {
                let mut limited = refuse(No::Limited);
                limited.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
                Ok(limited)
            }
            Behaviour::Fail { status, text } => Ok(refuse(No::Scripted(status, &text))),
        }
    }

    fn turn(&self, recipients: &[(&str, &str)]) -> Result<Behaviour, No<'static>> {
        if self.is_too_much() {
            return Ok(Behaviour::Limit { retry_after: 1 });
        }
        for (to, text) in recipients {
            match magic::of(to).map(|magic| magic.does) {
                Some(Does::Refuse(Why::Credentials)) => return Err(No::Credentials),
                Some(Does::Break(how)) if self.is_first(&format!("{to} {text}")) => {
                    return Ok(match how {
                        How::Cut => Behaviour::Cut,
                        How::Hang => Behaviour::Hang,
                        How::CutBefore => Behaviour::CutBefore,
                        How::Limit => Behaviour::Limit { retry_after: 1 },
                    });
                }
                _ => (),
            }
        }
        Ok(self.0.desk.next())
    }

    fn is_first(&self, what: &str) -> bool {
        let mut state = self.state();
        if state.tried.remove(what) {
            return false;
        }
        if state.tried.len() >= REMEMBERED {
            state.tried.clear();
        }
        state.tried.insert(what.to_owned())
    }

    /// Whether the limit is used up; a request that is let in uses it.
    fn is_too_much(&self) -> bool {
        let now = self.now();
        let mut state = self.state();
        let Some(limit) = state.limit else { return false };
        let window = TimeDelta::seconds(limit.seconds.into());
        while state.requests.front().is_some_and(|at| now - *at >= window) {
            state.requests.pop_front();
        }
        let full = state.requests.len() >= limit.requests;
        if !full {
            state.requests.push_back(now);
        }
        full
    }

    /// Enters a message into the ledger, and what is to be told of it.
    pub(super) fn take(&self, taken: Taken) {
        self.0.desk.record(taken.clone(), taken.text.len());
        let standing = MessageState { at: taken.at, end: End::Pending, taken };
        let by_users = (self.0.trade.by_users)(&standing.taken.kind);
        let plan = plan(told(&standing.taken.to), by_users);
        let mut state = self.state();
        let now = state.pace.now();
        for Step { after, end, changes, told } in plan {
            let event = format!("{}-{end:?}", standing.taken.id);
            let news = vec![News { event, standing: MessageState { end: *end, ..standing.clone() } }];
            state.numbers += 1;
            let key = (micros(now + after), state.numbers);
            state.later.insert(key, Later { news, changes: *changes, told: *told, tries: 0 });
        }
        state.messages.insert(standing.taken.id.clone(), standing);
        if state.messages.len() > MESSAGES {
            state.messages.pop_first();
        }
        drop(state);
        self.0.wake.notify_one();
    }

    /// The messages that are remembered and are so, in the order of their ids.
    pub(super) fn find(&self, wanted: impl Fn(&MessageState) -> bool) -> Vec<MessageState> {
        self.state().messages.values().filter(|standing| wanted(standing)).cloned().collect()
    }
}

/// What whoever sent it hears afterwards.
impl Vendor {
    async fn tell_in_time(self) {
        loop {
            let pause = {
                let state = self.state();
                state.later.first_key_value().and_then(|((due, _), _)| state.pace.until(*due))
            };
            // An hour stands for ever: there is no harm in looking up.
            let pause = pause.unwrap_or(Duration::from_hours(1));
            tokio::select! {
                () = self.0.wake.notified() => continue,
                () = tokio::time::sleep(pause) => (),
                () = self.0.shutdown.stopping() => return,
            }
            let now = micros(self.state().pace.now());
            self.tell_until(now).await;
        }
    }

    async fn tell_until(&self, due: u64) {
        let _in_order = self.0.telling.lock().await;
        for (url, later) in self.due(due) {
            let Some(receipts) = &self.0.trade.receipts else { return };
            let sheet = (receipts.envelope)(&later.news, later.tries, self.now());
            let mut headers = HeaderMap::new();
            for (name, value) in sheet.headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
            let told =
                self.0.http.post_json(&url, sheet.body.to_string().into_bytes(), headers, DecidedBy::Status).await;
            if told.is_ok_and(|answer| answer.status == 200) {
                continue;
            }
            if let Some(pause) = receipts.again.get(later.tries as usize) {
                let mut state = self.state();
                state.numbers += 1;
                let key = (micros(state.pace.now() + pause), state.numbers);
                state.later.insert(key, Later { tries: later.tries + 1, changes: false, ..later });
            }
        }
    }

    /// What is due, taken out and made true: what is to be told to whom.
    fn due(&self, due: u64) -> Vec<(Url, Later)> {
        let now = self.now();
        let mut state = self.state();
        let rest = state.later.split_off(&(due.saturating_add(1), 0));
        let ripe = std::mem::replace(&mut state.later, rest);
        let mut sheets: Vec<(Url, Later)> = Vec::new();
        for mut later in ripe.into_values() {
            for news in later.news.iter_mut().filter(|_| later.tries == 0) {
                news.standing.at = now;
                if let Some(message) = state.messages.get_mut(&news.standing.taken.id).filter(|_| later.changes) {
                    (message.end, message.at) = (news.standing.end, now);
                }
            }
            let Some(receipts) = self.0.trade.receipts.as_ref().filter(|_| later.told) else { continue };
            let product = later.news.first().and_then(|news| (receipts.product)(&news.standing.taken.kind));
            let Some(product) = product else { continue };
            let Some(url) = state.callbacks.get(product).or(state.callbacks.get("")).cloned() else { continue };
            match sheets.last_mut() {
                Some((to, sheet)) if *to == url && sheet.joins(&later, receipts.at_once) => {
                    sheet.news.append(&mut later.news)
                }
                _ => sheets.push((url, later)),
            }
        }
        sheets
    }
}

impl Later {
    /// Whether more news can go with these: those that are told again go as they went, and the same twice goes in two.
    fn joins(&self, more: &Later, at_once: usize) -> bool {
        let known = |event: &str| self.news.iter().any(|news| news.event == event);
        self.tries == 0
            && more.tries == 0
            && self.news.len() + more.news.len() <= at_once
            && !more.news.iter().any(|news| known(&news.event))
    }
}

/// One of the things that happen to a message.
struct Step {
    after: f64,
    end: End,
    changes: bool,
    told: bool,
}

const fn step(after: f64, end: End) -> Step {
    Step { after, end, changes: true, told: true }
}

/// What happens to a message, by what its recipient is magic for.
fn plan(told: Option<ReceiptPlan>, by_users: bool) -> &'static [Step] {
    const DELIVERED: Step = step(SOON, End::Delivered);
    match told {
        None => &[DELIVERED],
        Some(ReceiptPlan::Late) => const { &[step(LATE, End::Delivered)] },
        Some(ReceiptPlan::Never) => &[],
        Some(ReceiptPlan::Expired) => const { &[step(EXPIRED, End::Expired)] },
        Some(ReceiptPlan::Failed) => const { &[step(SOON, End::Failed)] },
        Some(ReceiptPlan::NotAUser) if by_users => const { &[step(SOON, End::NotAUser)] },
        Some(ReceiptPlan::NotAUser) => &[DELIVERED],
        Some(ReceiptPlan::Early) => const { &[step(0.0, End::Delivered)] },
        Some(ReceiptPlan::Twice) => const { &[DELIVERED, Step { changes: false, ..step(AFTERWARDS, End::Delivered) }] },
        Some(ReceiptPlan::Reordered) => {
            const { &[DELIVERED, Step { changes: false, ..step(AFTERWARDS, End::Pending) }] }
        }
        Some(ReceiptPlan::Changed) => const { &[step(SOON, End::Failed), step(AFTERWARDS, End::Delivered)] },
        Some(ReceiptPlan::Lost) => const { &[Step { told: false, ..DELIVERED }] },
    }
}

pub(super) fn told(to: &str) -> Option<ReceiptPlan> {
    match magic::of(to)?.does {
        Does::Tell(told) => Some(told),
        Does::Refuse(_) | Does::Break(_) => None,
    }
}

/// What several vendors ask of a text or a number.
pub(super) fn json(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    super::answer(status, "application/json;charset=UTF-8", body.to_string().into_bytes())
}

/// Digits of a Korean mobile or personal number, as vendors want them: 01012345678, 050712345678.
pub(super) fn is_recipient(digits: &str) -> bool {
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    let mobile = digits.starts_with("01") && matches!(digits.len(), 10 | 11);
    all && (mobile || digits.starts_with("050") && matches!(digits.len(), 11 | 12))
}

/// Digits of a sender: eight to eleven of them, a landline with its area code.
pub(super) fn is_sender(digits: &str) -> bool {
    digits.bytes().all(|b| b.is_ascii_digit()) && (8..=11).contains(&digits.len())
}

/// A JSON object's text at a name.
pub(super) fn text<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// The seed's two services: one message in a request, in JSON, behind a name and a password.
pub(super) struct Door {
    pub path: &'static str,
    pub username: &'static str,
    pub password: &'static str,
    /// The names of the recipient and of the text.
    pub to: &'static str,
    pub text: &'static str,
    /// What is wrong with a text.
    pub wrong: fn(&str) -> Option<&'static str>,
    /// Begins the ids.
    pub prefix: &'static str,
    /// Whether everybody can be reached, or only who uses the vendor's app.
    pub everybody: bool,
}

/// A refusal in the seed's services' words.
pub(super) fn refused(status: u16, code: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "code": code, "message": code.replace('_', " ") }))
}

pub(super) fn refused_by_status(why: Why) -> Option<Response<Full<Bytes>>> {
    match why {
        Why::Address => Some(refused(404, "no_such_recipient")),
        Why::Internal => Some(refused(503, "unavailable")),
        Why::OptedOut => Some(refused(422, "opted_out")),
        Why::Balance => Some(refused(402, "no_balance")),
        // Found out before anything else.
        Why::Credentials => None,
    }
}

pub(super) fn refuse_by_status(no: No<'_>) -> Response<Full<Bytes>> {
    match no {
        No::Credentials => refused(401, "unauthorized"),
        No::Limited => refused(429, "too_many_requests"),
        No::Scripted(status, code) => refused(status, code),
    }
}

impl Door {
    pub async fn open(&self, vendor: Vendor, call: Call) -> Answered {
        let recipient = match self.check(&call) {
            Ok(recipient) => recipient,
            Err(refusal) => return Ok(*refusal),
        };
        let (to, text) = (recipient.0.as_str(), recipient.1.as_str());
        let take = || {
            if let Some(refusal) = self.refusal(&vendor, to) {
                return refusal;
            }
            let (id, place) = (format!("{}-{:012}", self.prefix, vendor.number()), 1);
            vendor.take(Taken {
                id: id.clone(),
                request: id.clone(),
                place,
                kind: self.prefix.to_owned(),
                from: None,
                to: to.to_owned(),
                subject: None,
                text: text.to_owned(),
                reference: None,
                at: vendor.now(),
                options: Value::Null,
            });
            json(200, &serde_json::json!({ "messageId": id }))
        };
        vendor.act(&[(to, text)], take).await
    }

    fn refusal(&self, vendor: &Vendor, to: &str) -> Option<Response<Full<Bytes>>> {
        if !self.everybody && told(to) == Some(ReceiptPlan::NotAUser) {
            return Some(refused(404, "not_a_user"));
        }
        refused_by_status(vendor.refuses(to)?)
    }

    /// Recipient and text of a request in order.
    fn check(&self, call: &Call) -> Result<(String, String), Box<Response<Full<Bytes>>>> {
        let no = |status, code| Box::new(refused(status, code));
        if call.path != self.path {
            return Err(no(404, "not_found"));
        }
        if call.method != Method::POST {
            return Err(no(405, "method_not_allowed"));
        }
        let mine = data_encoding::BASE64.encode(format!("{}:{}", self.username, self.password).as_bytes());
        let theirs = call.header("authorization").and_then(|value| value.split_once(' '));
        if !theirs.is_some_and(|(scheme, secret)| scheme.eq_ignore_ascii_case("basic") && secret == mine) {
            let mut unknown = refused(401, "unauthorized");
            unknown.headers_mut().insert("www-authenticate", HeaderValue::from_static("Basic"));
            return Err(Box::new(unknown));
        }
        if !call.is_json() {
            return Err(no(415, "unsupported_media_type"));
        }
        let body: Value = serde_json::from_slice(&call.body).map_err(|_| no(400, "not_json"))?;
        let (to, content) = (text(&body, self.to), text(&body, self.text));
        let to = to.filter(|to| is_hyphenated(to)).ok_or_else(|| no(400, "invalid_recipient"))?;
        let content = content.ok_or_else(|| no(400, "no_text"))?;
        match (self.wrong)(content) {
            Some(code) => Err(no(400, code)),
            None => Ok((to.to_owned(), content.to_owned())),
        }
    }
}

/// 010-1234-5678, and nothing else.
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

    /// Somebody else's HTTP client at a simulator's door, and somebody that is called back.
    pub struct Caller {
        pub vendor: Vendor,
        pub hub: Hub,
        _shutdown: Shutdown,
        client: reqwest::Client,
    }

    /// What was called back, as it came: path and query, headers, JSON.
    #[derive(Clone, Default)]
    pub struct Hub {
        heard: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
        answers: Arc<Mutex<VecDeque<u16>>>,
    }

    impl Hub {
        pub fn heard(&self) -> Vec<(String, HeaderMap, Value)> {
            std::mem::take(&mut self.heard.lock().unwrap())
        }

        /// How the next calls are answered.
        pub fn answers(&self, statuses: &[u16]) {
            self.answers.lock().unwrap().extend(statuses);
        }

        async fn hear(self, request: Request<Incoming>) -> Answered {
            let (parts, body) = request.into_parts();
            let body = super::super::body(Request::new(body)).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap();
            self.heard.lock().unwrap().push((parts.uri.to_string(), parts.headers, body));
            let status = self.answers.lock().unwrap().pop_front().unwrap_or(200);
            Ok(super::super::text(StatusCode::from_u16(status).unwrap(), "heard"))
        }

        async fn start(shutdown: &Shutdown) -> (Hub, SocketAddr) {
            let hub = Hub::default();
            let (hearing, stopping) = (hub.clone(), shutdown.clone());
            let session = move |stream| {
                let hub = hearing.clone();
                super::super::serve(stream, stopping.clone(), move |request| hub.clone().hear(request))
            };
            (hub, super::super::testing::peer(shutdown, session).await)
        }
    }

    impl Caller {
        /// A vendor whose clock stands still.
        pub async fn at<S>(start: fn(Setup, Shutdown) -> S) -> Caller
        where
            S: Future<Output = Result<Vendor>>,
        {
            rustls_provider();
            let shutdown = Shutdown::new();
            let (hub, address) = Hub::start(&shutdown).await;
            let callback = Some(format!("http://{address}/receipts?key=k"));
            let setup = Setup { callback, rate: 0.0, ..Setup::default() };
            let client = reqwest::Client::builder().no_proxy().timeout(BUDGET).tls_certs_only([]).build().unwrap();
            Caller { vendor: start(setup, shutdown.clone()).await.unwrap(), _shutdown: shutdown, hub, client }
        }

        /// Status and JSON; None where the connection was closed instead.
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

        pub async fn set(&self, door: &str, what: Value) {
            let done = self.ask(Method::POST, door, &[], &what.to_string()).await;
            assert_eq!(done, Some((200, Value::from("ok"))), "{door} {what}");
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

    /// References and statuses, call by call.
    fn told(caller: &Caller) -> Vec<Vec<(String, String)>> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let news = |(_, _, body): (String, HeaderMap, Value)| {
            let receipts = body["receipts"].as_array().unwrap().clone();
            receipts.iter().map(|receipt| (word(&receipt["reference"]), word(&receipt["status"]))).collect()
        };
        caller.hub.heard().into_iter().map(news).collect()
    }

    fn said(reference: &str, status: &str) -> (String, String) {
        (reference.to_owned(), status.to_owned())
    }

    /// Each magic recipient that is taken has its own story, told in the order in which it is due.
    #[tokio::test]
    async fn receipts_are_late_early_twice_reordered_lost() {
        let caller = caller().await;
        for to in ["+821012345678", "+821000000003", "+821000000004", "+821000000007"] {
            assert_eq!(send(&caller, to, to).await.unwrap().0, 202);
        }
        for number in [8, 9, 15, 16, 17, 18] {
            let to = format!("+8210000000{number:02}");
            assert_eq!(send(&caller, &to, &to).await.unwrap().0, 202);
        }
        assert!(told(&caller).is_empty(), "nothing while the clock stands still");
        caller.vendor.tell().await;
        let n = |number: u8| format!("+8210000000{number:02}");
        let delivered = |number: u8| said(&n(number), "DELIVERED");
        assert_eq!(
            told(&caller),
            [
                // The same news in one call would be no repetition.
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
        let ends: Vec<End> = caller.vendor.find(|_| true).iter().map(|standing| standing.end).collect();
        use End::{Delivered, Expired, Failed, Pending};
        let expected = [Delivered, Delivered, Pending, Expired, Failed];
        assert_eq!(ends, [&expected[..], &[Delivered; 5]].concat(), "never stays open; what was lost can be asked for");
        // An early one is heard before the answer is.
        assert_eq!(send(&caller, &n(14), "early").await.unwrap().0, 202);
        assert_eq!(told(&caller), [[said("early", "DELIVERED")]]);
    }

    /// What is not answered with 200 is told again, as often as the vendor does and no more.
    #[tokio::test]
    async fn receipts_are_told_again() {
        let caller = caller().await;
        send(&caller, "+821012345678", "x").await;
        caller.hub.answers(&[500, 202, 404, 500, 500]);
        for _ in 0..6 {
            caller.vendor.tell().await;
        }
        assert_eq!(told(&caller), vec![[said("x", "DELIVERED")]; 4]);
    }

    /// The clock can be made to run, and the callback be moved, from outside.
    #[tokio::test]
    async fn the_clock_runs_as_fast_as_it_is_told() {
        let caller = caller().await;
        caller.set("/_clock", json!({ "rate": 1e9 })).await;
        send(&caller, "+821000000007", "25 hours").await;
        while caller.vendor.find(|standing| standing.end == End::Expired).is_empty() {
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

    /// Requests that go wrong do so once for each text; the ledger knows which were taken.
    #[tokio::test]
    async fn what_breaks_is_in_order_the_next_time() {
        let caller = caller().await;
        for (number, first, taken) in [(5, None, 1), (19, None, 0), (11, Some(429), 0)] {
            let (to, before) = (format!("+8210000000{number:02}"), caller.vendor.taken());
            let status = |answer: Option<(u16, Value)>| answer.map(|(status, _)| status);
            assert_eq!(status(send(&caller, &to, "a").await), first, "{to}");
            assert_eq!(caller.vendor.taken(), before + taken, "{to}");
            assert_eq!(status(send(&caller, &to, "a").await), Some(202), "{to}");
            assert_eq!(status(send(&caller, &to, "b").await), first, "another text goes wrong anew");
            assert_eq!(caller.vendor.taken(), before + 2 * taken + 1, "{to}");
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

    /// Balance and limit run out, and are given back.
    #[tokio::test]
    async fn what_a_caller_is_allowed_runs_out() {
        let caller = caller().await;
        let send = async || send(&caller, "+821012345678", "x").await.unwrap().0;
        caller.set("/_settings", json!({ "balance": 1 })).await;
        assert_eq!([send().await, send().await], [202, 402]);
        caller.set("/_settings", json!({ "balance": null, "limit": { "requests": 2, "seconds": 60 } })).await;
        assert_eq!([send().await, send().await, send().await], [202, 202, 429]);
        caller.set("/_settings", json!({ "limit": null })).await;
        assert_eq!(send().await, 202);
    }

    /// A request that is not answered is taken all the same.
    #[tokio::test]
    async fn a_request_may_hang() {
        let caller = caller().await;
        let hanging = send(&caller, "+821000000006", "x");
        tokio::select! {
            answer = hanging => panic!("answered {answer:?}"),
            () = async { while caller.vendor.taken() == 0 { tokio::task::yield_now().await } } => (),
        }
        assert_eq!(send(&caller, "+821000000006", "x").await.unwrap().0, 202);
    }

    /// Forged, late, unsigned: nothing is taken.
    #[tokio::test]
    async fn the_gateway_wants_a_signature() {
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
        assert_eq!(caller.vendor.taken(), 0);
    }
}
