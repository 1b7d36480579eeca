//! Traffic: rate limits over all processes, circuit breakers, and which of several providers is asked. Providers are stubs
//! that count when they were asked; the clock is the test's, and three workers are three hubs on one database.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use notihub::clock::Clock;
use notihub::flow;
use notihub::flow::delivery::route::downtime;
use notihub::hub::{Hub, Parts};
use notihub::model::access::role::StaffRole;
use notihub::model::capability::{Batch, Capability, Terms};
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::Outcome;
use notihub::model::lane::Lane;
use notihub::model::limit::{PermitReport, RateLimit, RateLimitUsage, Strategy};
use notihub::model::retry::ErrorClass;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::{Account, Looked, Pending, Provider, SendRequest};
use notihub::shutdown::Shutdown;
use notihub::store::PoolSizes;
use notihub::worker;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Answer, App, MASTER_KEY, slack_post, start_time};

// ---- stubs

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
    looked: Option<Looked>,
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

    fn lookup<'a>(&'a self, _letter: SendRequest<'a>) -> Pending<'a, Looked> {
        Box::pin(async { self.looked.clone().unwrap_or(Looked::CannotTell) })
    }

    fn send<'a>(&'a self, _letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move {
            self.calls.note();
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.says.0.lock().unwrap().clone()
        })
    }

    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            self.calls.note();
            vec![self.says.0.lock().unwrap().clone(); letters.len()]
        })
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
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

/// Another worker on the same database and clock.
async fn another(app: &App) -> Hub {
    let store = crate::support::store_of(&app.url, PoolSizes { api: 2, intake: 2, engine: 4, webhooks: 4 });
    let (settings, providers) = (app.hub.settings.clone(), app.hub.providers.clone());
    let clock = app.hub.clock.clone();
    flow::start(Parts { settings, store, providers, clock, shutdown: Shutdown::new(), master_keys: vec![MASTER_KEY] })
        .await
        .unwrap()
}

async fn stop(hub: Hub) {
    hub.shutdown.stop();
    assert!(hub.shutdown.drained(Duration::from_secs(20)).await, "tasks are left behind");
    hub.store.close().await;
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

    async fn told(&self, id: &str, what: &str) -> Vec<String> {
        let timeline = self.get(&format!("/v1/messages/{id}/timeline")).await.expect(200);
        let items = timeline.body["items"].as_array().unwrap().iter().filter(|e| e["what"] == what);
        items.map(|e| e["detail"].as_str().unwrap().to_owned()).collect()
    }

    async fn attempts(&self) -> i64 {
        self.count("select count(*) from attempts").await
    }
}

// ---- limits

const MINUTE: i64 = 60_000_000;

fn micros(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_800_000_000_000_000 + at).unwrap()
}

/// The most requests made in any span of this length, wherever it begins.
fn most_within(made: &[i64], span: i64) -> usize {
    made.iter().map(|from| made.iter().filter(|at| (*from..from + span).contains(at)).count()).max().unwrap_or(0)
}

fn strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![Just(Strategy::SlidingWindow), Just(Strategy::FixedWindow), Just(Strategy::TokenBucket)]
}

proptest! {
    /// S1-11, S1-14, S1-15, S1-16: whenever within its time what was taken is made, told, given back or lost, no more are made
    /// than the law of its strategy allows.
    #[test]
    fn no_more_is_made_than_the_law_allows(
        strategy in strategy(),
        count in 1u32..40,
        burst in 1u32..20,
        steps in prop::collection::vec((0i64..9_000_000, 0u32..30, any::<bool>(), 0i64..1_000, 0u8..4), 1..120),
    ) {
        let limit = RateLimit { strategy, burst, ..RateLimit::per_minute(count) };
        let (mut booked, mut now, mut made, mut reports) = (RateLimitUsage::default(), 0i64, Vec::new(), Vec::new());
        for (passed, wanted, tell, late, fate) in steps {
            now += passed;
            if tell {
                booked.apply_reports(&limit, &std::mem::take(&mut reports));
            }
            let taken = booked.take(&limit, wanted, micros(now));
            let valid = taken.valid_until.timestamp_micros() - micros(now).timestamp_micros();
            prop_assert!(valid >= 0);
            for n in 0..taken.granted {
                let at = now + valid * ((late + i64::from(n) * 37) % 1_000) / 999;
                if fate == 0 && n % 2 == 0 {
                    reports.push(PermitReport { valid_until: taken.valid_until, made_at: None });
                    continue;
                }
                made.push(at);
                if fate != 1 {
                    reports.push(PermitReport { valid_until: taken.valid_until, made_at: Some(micros(at)) });
                }
            }
        }
        made.sort_unstable();
        match strategy {
            Strategy::SlidingWindow => prop_assert!(most_within(&made, MINUTE) <= count as usize),
            Strategy::FixedWindow => {
                let mut windows = BTreeMap::new();
                let start = micros(0).timestamp_micros();
                made.iter().for_each(|at| *windows.entry((start + at).div_euclid(MINUTE)).or_insert(0) += 1);
                prop_assert!(windows.values().all(|n| *n <= count));
            }
            Strategy::TokenBucket => {
                for (n, from) in made.iter().enumerate() {
                    for (m, to) in made.iter().enumerate().skip(n) {
                        let allowed = i64::from(burst) * MINUTE + (to - from) * i64::from(count);
                        prop_assert!((m - n + 1) as i64 * MINUTE <= allowed, "{} in {}", m - n + 1, to - from);
                    }
                }
            }
        }
    }

    /// What is made at once and told is not held against the limit for longer than the law says: as many are made as it
    /// allows, and the next is free when it said.
    #[test]
    fn as_many_are_made_as_the_law_allows(strategy in strategy(), count in 1u32..40, burst in 1u32..20, begin in 0i64..60_000_000) {
        let limit = RateLimit { strategy, burst, ..RateLimit::per_minute(count) };
        let (mut booked, start) = (RateLimitUsage::default(), begin);
        let (mut now, mut made) = (start, 0u32);
        while now < start + 3 * MINUTE {
            let taken = booked.take(&limit, 7, micros(now));
            let reports = vec![PermitReport { valid_until: taken.valid_until, made_at: Some(micros(now)) }; taken.granted as usize];
            booked.apply_reports(&limit, &reports);
            made += taken.granted;
            // The law knows when it was made only now that it was told.
            let next = booked.used(&limit, micros(now)).1.timestamp_micros() - micros(0).timestamp_micros();
            if taken.granted < 7 {
                prop_assert!(next > now, "something is free now, but was not given");
                let early = booked.clone().take(&limit, 1, micros(next - 1));
                prop_assert_eq!(early.granted, 0, "free before it was said");
                prop_assert_eq!(booked.clone().take(&limit, 1, micros(next)).granted, 1);
                now = next;
            }
        }
        let whole = match strategy {
            Strategy::SlidingWindow => 3 * count,
            Strategy::FixedWindow => if micros(start).timestamp_micros() % MINUTE == 0 { 3 * count } else { 4 * count },
            // The burst, and one each time a token is whole again before the end.
            Strategy::TokenBucket => burst + (3 * count - 1),
        };
        prop_assert_eq!(made, whole);
    }
}

/// Three workers, each second for three minutes; returns when the provider was asked.
async fn three_minutes(terms: Terms, batch: Batch, post: usize) -> (App, Vec<DateTime<Utc>>) {
    let (says, calls) = (Says::new(good()), Calls::default());
    let stub = Stub { batch, ..Stub::new("limited", Channel::Slack, &says, &calls) };
    let app = App::with_accounts(&["--claim-batch=40"], vec![stub.on(terms)]).await;
    calls.by(&app);
    let hubs = [app.hub.clone(), another(&app).await, another(&app).await];
    app.post_many(post).await;
    for second in 0..180 {
        // At once now and then, one after the other else, and never the same first.
        if second % 30 == 0 {
            let passes = hubs.iter().map(worker::deliver::deliver_due);
            futures_util::future::join_all(passes).await.into_iter().for_each(|pass| assert!(pass.is_ok(), "{pass:?}"));
        } else {
            worker::deliver::deliver_due(&hubs[second % 3]).await.unwrap();
        }
        app.advance(1);
    }
    let [_, second, third] = hubs;
    stop(second).await;
    stop(third).await;
    let at = calls.at();
    (app, at)
}

async fn end(app: App) {
    app.settle_all().await;
    app.done().await;
}

/// S1-8, S1-12, S1-16: 100 in any minute, over three minutes and three workers, to the request; and nothing was claimed in
/// vain.
#[tokio::test]
async fn a_sliding_window_is_held_to_the_request() {
    let (app, at) = three_minutes(limited(100, Strategy::SlidingWindow, 1), Batch::One, 420).await;
    assert_eq!(at.len(), 300);
    let made: Vec<i64> = at.iter().map(DateTime::timestamp_micros).collect();
    assert_eq!(most_within(&made, MINUTE), 100);
    let deferred = app.count("select count(*) from attempts where outcome = 'NOT_CALLED'").await;
    assert!(deferred <= 3, "{deferred} were claimed in vain");
    end(app).await;
}

/// S1-13, S1-15: 500 in each minute of the clock.
#[tokio::test]
async fn a_fixed_window_is_held_to_the_request() {
    let (app, at) = three_minutes(limited(500, Strategy::FixedWindow, 1), Batch::One, 1_700).await;
    let mut windows: BTreeMap<i64, usize> = BTreeMap::new();
    at.iter().for_each(|at| *windows.entry(at.timestamp() / 60).or_default() += 1);
    assert_eq!(windows.into_values().collect::<Vec<_>>(), [500, 500, 500]);
    end(app).await;
}

/// S1-14: the burst at once, and then one each 0.6 s, which is five in three seconds.
#[tokio::test]
async fn a_token_bucket_is_held_to_the_request() {
    let (app, at) = three_minutes(limited(100, Strategy::TokenBucket, 20), Batch::One, 360).await;
    let until = |seconds: i64| at.iter().filter(|at| **at <= start_time() + TimeDelta::seconds(seconds)).count();
    assert_eq!((until(0), until(3), until(60)), (20, 25, 120));
    assert_eq!(at.len(), until(179));
    assert_eq!(at.len(), 20 + 179 * 100 / 60);
    end(app).await;
}

/// S1-53: a limit counts requests: what goes together counts once.
#[tokio::test]
async fn a_batch_is_one_request() {
    let (app, at) = three_minutes(limited(2, Strategy::SlidingWindow, 1), Batch::Any(20), 200).await;
    assert_eq!(at.len(), 6);
    assert!(app.count("select count(*) from deliveries where status = 'SENT'").await > 6, "several at once");
    end(app).await;
}

/// S1-11, S1-41: a message that waits for a limit uses no attempt, and its story says for what and until when; an operator
/// sees how much is used.
#[tokio::test]
async fn what_waits_for_a_limit_burns_no_attempt() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let stub = Stub::new("limited", Channel::Slack, &says, &calls);
    let app = App::with_accounts(&[], vec![stub.on(limited(5, Strategy::SlidingWindow, 1))]).await;
    calls.by(&app);
    app.post_many(5).await;
    app.advance(1);
    let last = app.one().await;
    for _ in 0..30 {
        app.work().await;
        app.advance(1);
    }
    assert_eq!(calls.count(), 5);
    let before = app.attempts().await;
    assert!(before <= 6, "{before} attempts for 5 calls");
    let held = app.told(&last, "limited").await;
    assert!(held.len() == 1 && held[0].contains("5 in 60 s") && held[0].contains("it waits until"), "{held:?}");
    let provider = app.provider("limited").await;
    assert_eq!((&provider["status"], &provider["limit"]["used"]), (&json!("LIMITED"), &json!(5)), "{provider}");
    assert!(app.metrics().await.text.contains("notihub_limit_free{provider=\"limited\"} 0"));
    app.settle_all().await;
    assert_eq!(calls.count(), 6);
    let held = app.told(&last, "limited").await;
    assert!(held[0].contains("it waited until"), "{held:?}");
    app.done().await;
}

// ---- breakers

/// S1-54: for a minute everything is refused with the provider's own trouble. While open it is asked by one probe at a time,
/// afterwards by few at once; every message ends well.
#[tokio::test]
async fn a_storm_opens_the_breaker_and_nothing_is_lost() {
    let (says, calls) = (Says::new(no(ErrorClass::ProviderInternal)), Calls::default());
    let stub = Stub::new("stormy", Channel::Slack, &says, &calls);
    let app = App::with_accounts(&["--retry-max-attempts=5"], vec![stub.on(Terms::default())]).await;
    calls.by(&app);
    let other = another(&app).await;
    let mut ids = app.post_many(5).await;
    app.work().await;
    let opened_by = calls.count();
    assert_eq!(app.provider("stormy").await["status"], "OPEN");
    assert_eq!(app.provider("stormy").await["breaker"]["reason"], "provider_error");
    assert!(downtime(&app.hub, Channel::Slack).is_some());
    ids.extend(app.post_many(300).await);
    for _ in 0..60 {
        app.advance(1);
        app.work().await;
        worker::deliver::deliver_due(&other).await.unwrap();
    }
    let probes = calls.count() - opened_by;
    assert!((1..=6).contains(&probes), "{probes} calls while it was open for a minute");
    let held = app.told(&ids[200], "breaker").await;
    assert!(held.len() == 1 && held[0].contains("provider_error"), "{held:?}");
    says.set(good());
    app.settle_all().await;
    stop(other).await;
    assert_eq!(app.provider("stormy").await["status"], "UP");
    assert!(downtime(&app.hub, Channel::Slack).is_none());
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    let called = "select count(*) from attempts where called_at is not null and shard >= 0";
    assert_eq!(app.count(called).await as usize, calls.count());
    assert!(app.metrics().await.text.contains("notihub_breaker_openings_total"), "S1-41");
    app.done().await;
}

/// No thundering herd: what waited goes one at a time, then two, four and so on at once.
#[tokio::test]
async fn a_recovered_provider_is_asked_by_few_at_once_at_first() {
    let (says, calls) = (Says::new(no(ErrorClass::Unreachable)), Calls::default());
    let at_once = Arc::new((AtomicUsize::new(0), Mutex::new(Vec::new())));
    struct Counting(Stub, Arc<(AtomicUsize, Mutex<Vec<usize>>)>);
    impl Provider for Counting {
        fn name(&self) -> &str {
            self.0.name
        }
        fn capabilities(&self) -> Vec<Capability> {
            self.0.capabilities()
        }
        fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
            Box::pin(async move {
                let (now, all) = &*self.1;
                let mine = now.fetch_add(1, Ordering::SeqCst) + 1;
                all.lock().unwrap().push(mine);
                tokio::task::yield_now().await;
                let outcome = self.0.send(letter).await;
                now.fetch_sub(1, Ordering::SeqCst);
                outcome
            })
        }
        fn check(&self) -> Pending<'_, Result<String, String>> {
            self.0.check()
        }
    }
    let stub = Counting(Stub::new("back", Channel::Slack, &says, &calls), at_once.clone());
    let app = App::with_accounts(&[], vec![Account::new(Arc::new(stub), Terms::default())]).await;
    calls.by(&app);
    app.post_many(5).await;
    app.work().await;
    assert_eq!(app.provider("back").await["status"], "OPEN");
    app.post_many(400).await;
    says.set(good());
    at_once.1.lock().unwrap().clear();
    app.advance(6);
    app.work().await;
    let seen = at_once.1.lock().unwrap().clone();
    assert!(seen.len() > 300, "{} went", seen.len());
    for (n, now) in seen.iter().enumerate() {
        assert!(*now <= (n + 1).max(2), "call {n} was one of {now} at once");
    }
    assert!(seen.iter().take(3).all(|now| *now == 1), "the probes go alone");
    end(app).await;
}

/// Credentials that are not good open it at once; nothing fails for it, and when they are mended all goes on.
#[tokio::test]
async fn refused_credentials_stop_the_traffic_and_keep_the_messages() {
    let (says, calls) = (Says::new(no(ErrorClass::Credentials)), Calls::default());
    let stub = Stub::new("locked", Channel::Slack, &says, &calls);
    let app = App::with_accounts(&[], vec![stub.on(Terms::default())]).await;
    calls.by(&app);
    app.one().await;
    app.work().await;
    assert_eq!(calls.count(), 1);
    assert_eq!(app.provider("locked").await["breaker"]["reason"], "credentials_refused");
    app.post_many(50).await;
    for _ in 0..100 {
        app.advance(5);
        app.work().await;
    }
    assert!(calls.count() <= 12, "{} calls in 500 s", calls.count());
    assert_eq!(app.count("select count(*) from deliveries where status in ('SCHEDULED', 'PENDING')").await, 51);
    says.set(good());
    // Whoever corrected the key need not wait for the next probe.
    let before = calls.count();
    app.work().await;
    assert_eq!(calls.count(), before, "not yet its time");
    app.operate("POST", "/v1/providers/locked/resume").await.expect(200);
    app.work().await;
    assert!(calls.count() > before, "probed at once");
    end_sent(app).await;
}

async fn end_sent(app: App) {
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    app.done().await;
}

/// Recipients' faults never open it, however many there are.
#[tokio::test]
async fn recipients_faults_open_nothing() {
    let (says, calls) = (Says::new(no(ErrorClass::Address)), Calls::default());
    let stub = Stub::new("sound", Channel::Slack, &says, &calls);
    let app = App::with_accounts(&[], vec![stub.on(Terms::default())]).await;
    app.post_many(100).await;
    app.work().await;
    assert_eq!((calls.count(), app.provider("sound").await["status"].clone()), (100, json!("UP")));
    app.done().await;
}

/// Refuses all that comes with something bad, and does not say what.
struct Choosy;

impl Choosy {
    fn says(letters: &[SendRequest<'_>]) -> Outcome {
        match letters.iter().any(|letter| letter.content.body.ends_with("no 7")) {
            true if letters.len() == 1 => no(ErrorClass::Content),
            true => no(ErrorClass::RefusedInBatch),
            false => good(),
        }
    }
}

impl Provider for Choosy {
    fn name(&self) -> &'static str {
        "choosy"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { batch: Batch::Any(100), ..Capability::of(Channel::Slack) }]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(std::future::ready(Choosy::says(&[letter])))
    }

    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(std::future::ready(vec![Choosy::says(&letters); letters.len()]))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async { Ok("a stub".to_owned()) })
    }
}

/// One bad message neither ends those that went with it nor opens the breaker: each is tried again by itself.
#[tokio::test]
async fn one_bad_message_ends_no_other() {
    let app = App::with_accounts(&[], vec![Account::new(Arc::new(Choosy), Terms::default())]).await;
    let ids = app.post_many(40).await;
    app.work().await;
    assert_eq!(app.provider("choosy").await["status"], "UP");
    app.settle_all().await;
    for (n, id) in ids.iter().enumerate() {
        let (status, reason) = if n == 7 { ("FAILED", Some("content_refused")) } else { ("SENT", None) };
        let delivery = app.message(id).await["deliveries"][0].clone();
        assert_eq!((delivery["status"].as_str(), delivery["reason"].as_str()), (Some(status), reason), "{n}");
    }
    assert!(app.count("select count(*) from attempts where code = 'stub'").await > 2, "they went together at first");
    app.done().await;
}

/// S0-36, S1-52: a provider that hangs for good holds up no other channel, and none of its calls holds a connection.
#[tokio::test]
async fn a_provider_that_hangs_holds_up_nobody_else() {
    let (says, calls, gate) = (Says::new(good()), Calls::default(), Arc::new(Semaphore::new(0)));
    let stub = Stub { gate: Some(gate.clone()), ..Stub::new("hangs", Channel::Slack, &says, &calls) };
    let app = App::with_accounts(&["--poll-idle-ms=20"], vec![stub.on(Terms::default())]).await;
    app.post_many(600).await;
    worker::start(&app.hub, worker::Role::Worker);
    until("calls hang", async || calls.count() >= 100).await;
    let mail = crate::support::email("kim@example.com");
    let id = app.post("/v1/messages", mail).await.expect(202).id();
    until("the mail is sent", async || app.message(&id).await["deliveries"][0]["status"] == "SENT").await;
    // More calls hang than there are connections.
    assert!(calls.count() >= 100 && app.count("select 1::bigint").await == 1);
    gate.add_permits(1_000_000);
    until("all are sent", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0)
        .await;
    app.done().await;
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

// ---- what goes wrong around it

/// S1-8, S1-16: what is taken while the database stands still may be made from then on, and counts from then on.
#[tokio::test]
async fn a_limit_holds_while_the_database_stands_still() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let stub = Stub::new("limited", Channel::Slack, &says, &calls).on(limited(50, Strategy::SlidingWindow, 1));
    let app = App::with_accounts(&[], vec![stub]).await;
    calls.by(&app);
    app.one().await;
    app.work().await;
    app.post_many(120).await;
    app.advance(60);
    let db = app.db().await;
    let mut stall = db.begin().await.unwrap();
    sqlx::query("select from provider_limits for update").execute(&mut *stall).await.unwrap();
    let release = async {
        until("it waits", async || app.count("select count(*) from pg_locks where not granted").await > 0).await;
        app.advance(10);
        stall.commit().await.unwrap();
    };
    tokio::join!(app.work(), release);
    for _ in 0..70 {
        app.advance(1);
        app.work().await;
    }
    let at: Vec<i64> = calls.at().iter().map(DateTime::timestamp_micros).collect();
    assert!(at.len() > 51 && most_within(&at, MINUTE) <= 50, "{} of {}", most_within(&at, MINUTE), at.len());
    end(app).await;
}

/// S1-12, S1-54: a probe is a request like any other: while the limit is used up nothing is claimed for it.
#[tokio::test]
async fn a_probe_waits_for_the_limit() {
    let (says, calls) = (Says::new(no(ErrorClass::Credentials)), Calls::default());
    let stub = Stub::new("locked", Channel::Slack, &says, &calls).on(limited(1, Strategy::SlidingWindow, 1));
    let app = App::with_accounts(&[], vec![stub]).await;
    calls.by(&app);
    app.one().await;
    app.work().await;
    app.post_many(50).await;
    app.advance(40);
    let claimed = app.work().await;
    assert!(claimed <= 2, "{claimed} were claimed for a request that may not be made");
    app.advance(21);
    app.work().await;
    assert_eq!(calls.count(), 2, "and then it is made");
    app.done().await;
}

/// A clock that was set back, or a database that was, blocks no limit for longer than its time.
#[test]
fn a_clock_set_back_blocks_no_limit() {
    for strategy in [Strategy::SlidingWindow, Strategy::FixedWindow, Strategy::TokenBucket] {
        let limit = RateLimit { strategy, burst: 5, ..RateLimit::per_minute(5) };
        let (mut booked, hour) = (RateLimitUsage::default(), 60 * MINUTE);
        assert_eq!(booked.take(&limit, 5, micros(hour)).granted, 5);
        let _counted = booked.take(&limit, 0, micros(hour + MINUTE / 6));
        assert!(booked.take(&limit, 5, micros(0)).granted <= 1, "{strategy}: what was made may have been made now");
        assert!(booked.used(&limit, micros(0)).1 <= micros(MINUTE + 2_000_000), "{strategy}");
        assert_eq!(booked.take(&limit, 5, micros(2 * MINUTE)).granted, 5, "{strategy}");
    }
}

/// A process that knows a newer state than the database, which was set back, goes by the database.
#[tokio::test]
async fn a_database_set_back_is_believed() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let app =
        App::with_accounts(&[], vec![Stub::new("vendor", Channel::Slack, &says, &calls).on(Terms::default())]).await;
    app.operate("POST", "/v1/providers/vendor/pause").await.expect(200);
    let back = "update provider_states set changed_at = changed_at - interval '1 hour'";
    sqlx::query(back).execute(&app.db().await).await.unwrap();
    let resumed = tokio::time::timeout(Duration::from_secs(60), app.operate("POST", "/v1/providers/vendor/resume"));
    assert_eq!(resumed.await.expect("an answer").expect(200).body["status"], "UP");
    app.one().await;
    app.work().await;
    assert_eq!(calls.count(), 1);
    app.done().await;
}

// ---- several providers of a channel

/// Shares follow the weights; one of weight 0 stands by.
#[tokio::test]
async fn traffic_is_shared_by_weight() {
    let (says, [a, b, c]) = (Says::new(good()), [(); 3].map(|()| Calls::default()));
    let accounts = vec![
        Stub::new("three", Channel::Slack, &says, &a).on(weighing(3)),
        Stub::new("one", Channel::Slack, &says, &b).on(weighing(1)),
        Stub::new("standby", Channel::Slack, &says, &c).on(weighing(0)),
    ];
    let app = App::with_accounts(&[], accounts).await;
    app.post_many(200).await;
    app.work().await;
    assert_eq!((a.count(), b.count(), c.count()), (150, 50, 0));
    app.done().await;
}

/// S1-49: while one is in trouble another of the channel is asked; once it works again it takes its share back, and does not
/// go to and fro.
#[tokio::test]
async fn another_provider_takes_over_and_gives_back() {
    let (bad, fine) = (Says::new(no(ErrorClass::ProviderInternal)), Says::new(good()));
    let (first, second) = (Calls::default(), Calls::default());
    let accounts = vec![
        Stub::new("first", Channel::Slack, &bad, &first).on(weighing(1)),
        Stub::new("second", Channel::Slack, &fine, &second).on(weighing(0)),
    ];
    let app = App::with_accounts(&[], accounts).await;
    first.by(&app);
    app.post_many(100).await;
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    let storm = first.count();
    assert_eq!(second.count(), 100);
    assert!(downtime(&app.hub, Channel::Slack).is_none());
    // Open: all go to the second but for probes, one each time it may be probed.
    for _ in 0..12 {
        app.post_many(10).await;
        app.work().await;
        app.advance(10);
    }
    assert!(first.count() - storm <= 6, "{} probes in two minutes", first.count() - storm);
    bad.set(good());
    app.advance(300);
    let recovering = first.count();
    for _ in 0..15 {
        app.post_many(40).await;
        app.work().await;
    }
    assert!((100..600).contains(&(first.count() - recovering)), "little by little");
    let (back, taken) = (first.count(), second.count());
    app.post_many(100).await;
    app.work().await;
    assert_eq!((first.count() - back, second.count() - taken), (100, 0), "it has its share again");
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    app.done().await;
}

/// Two accounts that can be asked what they have.
async fn two_that_look_up(says: &Says) -> (App, [Calls; 2]) {
    let calls = [Calls::default(), Calls::default()];
    let stub =
        |name, n: usize| Stub { looked: Some(Looked::NotTaken), ..Stub::new(name, Channel::Slack, says, &calls[n]) };
    let accounts = vec![stub("first", 0).on(weighing(1)), stub("second", 1).on(weighing(1))];
    (App::with_accounts(&[], accounts).await, calls)
}

/// S1-49: what a lost worker may have sent is asked for where it was sent, when it can be found there, and nowhere else.
#[tokio::test]
async fn what_was_lost_is_asked_for_where_it_was_sent() {
    let (app, calls) = two_that_look_up(&Says::new(good())).await;
    let id = app.one().await;
    let look = PlannedClaim {
        place: (app.partner.shard, Lane::new(Channel::Slack, Default::default(), false)),
        from_ready_at: DateTime::UNIX_EPOCH,
        rows: 10,
    };
    let claim = flow::delivery::claim::claim(&app.hub, app.hub.next_id(), &[look], 10).await.unwrap();
    // Begun, and then nothing more: this is where a worker dies.
    assert_eq!(flow::delivery::load::load(&app.hub, claim).await.held.len(), 1);
    let over = "update deliveries set lease_until = clock_timestamp() - interval '1 ms' where status = 'PROCESSING'";
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    assert_eq!(app.work().await, 0, "its list may not have it yet");
    assert_eq!(app.message(&id).await["deliveries"][0]["status"], "SCHEDULED");
    app.advance(31);
    assert_eq!(app.work().await, 1);
    let asked: String = sqlx::query_scalar("select provider from attempts where outcome = 'UNKNOWN'")
        .fetch_one(&app.db().await)
        .await
        .unwrap();
    let by_name = BTreeMap::from([("first", calls[0].count()), ("second", calls[1].count())]);
    assert_eq!((by_name[asked.as_str()], by_name.values().sum::<usize>()), (1, 1), "{asked}: {by_name:?}");
    app.done().await;
}

/// What may have been taken by a provider that is not in the settings any more is sent by no other.
#[tokio::test]
async fn what_may_have_been_taken_elsewhere_is_not_sent_again() {
    let unknown = Outcome::Unknown { code: "no_answer", detail: "as the test says".into() };
    let says = Says::new(unknown);
    let (app, calls) = two_that_look_up(&says).await;
    let id = app.one().await;
    app.work().await;
    says.set(good());
    sqlx::query("update deliveries set provider = 'renamed'").execute(&app.db().await).await.unwrap();
    app.settle_all().await;
    assert_eq!(calls.iter().map(Calls::count).sum::<usize>(), 1);
    let delivery = app.message(&id).await["deliveries"][0].clone();
    assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("UNDETERMINED"), &json!("lookup_failed")));
    app.done().await;
}

// ---- pause

/// A paused provider is not asked, nothing is lost or burnt, and the audit log says who did it.
#[tokio::test]
async fn an_operator_pauses_and_resumes_a_provider() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let app =
        App::with_accounts(&[], vec![Stub::new("vendor", Channel::Slack, &says, &calls).on(Terms::default())]).await;
    let partner = app.token.clone();
    app.ask(&partner, "POST", "/v1/providers/vendor/pause", None).await.refused(403, "forbidden");
    app.operate("POST", "/v1/providers/nobody/pause").await.refused(404, "not_found");
    let paused = app.operate("POST", "/v1/providers/vendor/pause").await.expect(200).body;
    assert_eq!(paused["status"], "PAUSED");
    let id = app.one().await;
    app.advance(60);
    app.work().await;
    assert_eq!((calls.count(), app.attempts().await), (0, 0));
    let held = app.told(&id, "paused").await;
    assert!(held.len() == 1 && held[0].contains("waits yet"), "{held:?}");
    app.operate("POST", "/v1/providers/vendor/resume").await.expect(200);
    app.work().await;
    assert_eq!(calls.count(), 1);
    assert!(app.told(&id, "paused").await[0].contains("it waited until"));
    let deeds =
        "select count(*) from audit where action in ('provider.pause', 'provider.resume') and object = 'vendor'";
    assert_eq!(app.count(deeds).await, 2);
    app.done().await;
}
