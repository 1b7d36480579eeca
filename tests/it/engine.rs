//! The engine: what happens when two want the same delivery, when a worker is lost or late, when hints are lost, when the
//! database stalls. Two workers are two hubs on one database. A lease is over when the test says so, in the table: no
//! test waits for one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use notihub::clock::Clock;
use notihub::flow::delivery::claim::{claim, claim_suspect};
use notihub::flow::delivery::load::{HeldDelivery, load};
use notihub::flow::delivery::promote::{Promoter, promote};
use notihub::flow::delivery::reap::{Reaper, reap};
use notihub::flow::delivery::settle::settle;
use notihub::flow::delivery::sweep::{Sweeper, sweep};
use notihub::hub::{Hub, Parts};
use notihub::id::Tsid;
use notihub::model::capability::Capability;
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::{BeginRecord, DeliveryKey, MAX_WORKERS_LOST, Outcome, READY_WHEN_PREDECESSOR_ENDS};
use notihub::model::lane::Lane;
use notihub::model::retry::ErrorClass;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::simulator::Behaviour;
use notihub::provider::{Pending, Provider, SendRequest};
use notihub::shutdown::Shutdown;
use notihub::store::delivery::{Ask, Settle};
use notihub::store::{self, PoolSizes};
use notihub::worker::{self, Role};
use serde_json::{Value, json};
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::sync::Semaphore;

use crate::support::{App, MASTER_KEY, call_one, email, slack_post, start_time};

/// Another process on the same database: connections, ids and hints of its own; the same providers and clock.
pub(crate) async fn another(app: &App) -> Hub {
    another_with(app, PoolSizes { api: 4, intake: 4, engine: 4, webhooks: 4 }, app.hub.clock.clone()).await
}

async fn another_with(app: &App, sizes: PoolSizes, clock: Clock) -> Hub {
    let store = crate::support::store_of(&app.url, sizes);
    let (settings, providers) = (app.hub.settings.clone(), app.hub.providers.clone());
    notihub::flow::start(Parts {
        settings,
        store,
        providers,
        clock,
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap()
}

pub(crate) async fn stop(hub: Hub) {
    hub.shutdown.stop();
    assert!(hub.shutdown.drained(Duration::from_secs(20)).await, "tasks are left behind");
    hub.store.close().await;
}

/// All lanes from their beginning.
async fn asks(hub: &Hub, take: i64) -> Vec<Ask> {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    let lanes = Lane::all_of(&hub.providers.channels());
    let places = lanes.iter().flat_map(|&lane| shards.iter().map(move |&shard| (shard, lane)));
    places
        .map(|(shard, lane)| {
            let begins_recorded =
                hub.settings.retry.on_unknown(lane.channel()).unwrap_or(lane.channel().on_unknown()) > OnUnknown::Retry;
            Ask { shard, lane, mark: DateTime::UNIX_EPOCH, take, begins_recorded }
        })
        .collect()
}

/// A worker's claim, as far as the call.
async fn take(hub: &Hub, most: i64) -> Vec<HeldDelivery> {
    let asks = asks(hub, most).await;
    let looks: Vec<PlannedClaim> =
        asks.iter().map(|a| PlannedClaim { place: (a.shard, a.lane), from_ready_at: a.mark, rows: a.take }).collect();
    load(hub, claim(hub, hub.next_id(), &looks, most).await.unwrap()).await.held
}

async fn take_one(hub: &Hub) -> HeldDelivery {
    let [held] =
        <[HeldDelivery; 1]>::try_from(take(hub, 10).await).unwrap_or_else(|held| panic!("claimed {}", held.len()));
    held
}

/// A worker's claim of the one delivery that waits apart for longest, as far as the call.
async fn take_alone(hub: &Hub) -> HeldDelivery {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    let (claim, _) =
        claim_suspect(hub, hub.next_id(), &shards, &hub.providers.channels()).await.unwrap().expect("one waits apart");
    load(hub, claim).await.held.pop().expect("it is held")
}

/// Claims it only.
async fn grab_alone(hub: &Hub) -> Option<i16> {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    claim_suspect(hub, hub.next_id(), &shards, &hub.providers.channels()).await.unwrap().map(|(_, deaths)| deaths)
}

/// Claims only: what a worker that is lost at once leaves behind.
async fn grab(hub: &Hub, most: i64) -> Vec<DeliveryKey> {
    let (asks, lease) = (asks(hub, most).await, hub.settings.timing.lease());
    let mut conn = connection(hub).await;
    let claimed = store::delivery::claim(&mut *conn, &asks, most, hub.next_id(), lease).await.unwrap();
    claimed.into_iter().map(|c| c.key).collect()
}

/// One of the engine's, however busy the machine is.
async fn connection(hub: &Hub) -> PoolConnection<Postgres> {
    loop {
        if let Ok(conn) = hub.store.engine().acquire().await {
            return conn;
        }
    }
}

/// The lease of all that is held is over, and the reaper comes by; returns how many it took back.
async fn lose(app: &App) -> usize {
    let over =
        "update deliveries set lease_until = clock_timestamp() - interval '1 second' where status = 'PROCESSING'";
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    reap_all(&app.hub).await
}

async fn reap_all(hub: &Hub) -> usize {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    reap(hub, &mut Reaper::default(), &shards).await.unwrap()
}

async fn promote_all(hub: &Hub) -> usize {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    let (mut promoter, mut all) = (Promoter::default(), 0);
    loop {
        match promote(hub, &mut promoter, &shards).await.unwrap() {
            0 => return all,
            n => all += n,
        }
    }
}

impl App {
    /// Posts one message, again if the machine is too busy to take it; its id.
    async fn accept(&self, mut body: Value) -> String {
        body["clientMsgId"] = json!(self.hub.next_id().to_string());
        loop {
            let answer = self.post("/v1/messages", body.clone()).await;
            if answer.status < 300 {
                return answer.id();
            }
            answer.refused(503, "database_unavailable");
        }
    }

    /// Posts many messages at once; their ids.
    async fn accept_all(&self, bodies: Vec<Value>) -> Vec<String> {
        let mut ids = Vec::new();
        for some in bodies.chunks(1000) {
            let answer = self.post("/v1/messages/batch", json!({ "messages": some })).await.expect(202);
            let of = |message: &Value| message["messageId"].as_str().unwrap().to_owned();
            ids.extend(answer.body["messages"].as_array().unwrap().iter().map(of));
        }
        ids
    }

    /// A message's only delivery.
    async fn delivery(&self, id: &str) -> Value {
        self.message(id).await["deliveries"][0].clone()
    }

    /// Its status and why.
    async fn stands(&self, id: &str) -> (String, Option<String>) {
        let delivery = self.delivery(id).await;
        let text = |name: &str| delivery[name].as_str().map(str::to_owned);
        (text("status").unwrap(), text("reason"))
    }

    /// What its attempts came to.
    async fn outcomes(&self, id: &str) -> Vec<String> {
        let delivery = self.delivery(id).await;
        let attempt = |a: &Value| {
            let late = if a["late"] == true { " late" } else { "" };
            format!("{}{late}", a["outcome"].as_str().unwrap())
        };
        delivery["attempts"].as_array().unwrap().iter().map(attempt).collect()
    }

    /// What was told about it.
    async fn events(&self, id: &str) -> Vec<String> {
        let timeline = self.get(&format!("/v1/messages/{id}/timeline")).await.expect(200);
        let items = timeline.body["items"].as_array().unwrap().iter().filter(|e| e["what"] == "event");
        items.map(|e| e["detail"].as_str().unwrap().to_owned()).collect()
    }
}

/// Asks until it is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// A provider that does what the test says.
struct Stub<F> {
    channel: Channel,
    act: F,
}

impl<F: Fn(&SendRequest<'_>) -> Pending<'static, Outcome> + Send + Sync + 'static> Provider for Stub<F> {
    fn name(&self) -> &'static str {
        "stub"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(self.channel)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        (self.act)(&letter)
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async { Ok("a stub".to_owned()) })
    }
}

fn stub<F>(channel: Channel, act: F) -> Arc<dyn Provider>
where
    F: Fn(&SendRequest<'_>) -> Pending<'static, Outcome> + Send + Sync + 'static,
{
    Arc::new(Stub { channel, act })
}

/// Calls wait at the gate until the test opens it; how many have come is counted.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    came: Arc<AtomicUsize>,
}

impl Gate {
    fn new() -> Gate {
        Gate { open: Arc::new(Semaphore::new(0)), came: Arc::default() }
    }

    fn provider(&self, channel: Channel) -> Arc<dyn Provider> {
        let gate = self.clone();
        stub(channel, move |_| {
            let gate = gate.clone();
            Box::pin(async move {
                gate.came.fetch_add(1, Ordering::SeqCst);
                gate.open.acquire().await.unwrap().forget();
                Outcome::Accepted { provider_ref: None }
            })
        })
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }

    fn open(&self) {
        self.open.add_permits(1_000_000);
    }
}

fn emails(n: usize) -> Vec<Value> {
    (0..n).map(|n| email(&format!("no{n}@example.com"))).collect()
}

fn slack_posts(n: usize) -> Vec<Value> {
    (0..n).map(|n| slack_post(&format!("no {n}"))).collect()
}

// ---- claim

/// S3-11, S3-36: a claim passes over what another claim holds, committed or not, without waiting for it.
#[tokio::test]
async fn two_claims_at_the_same_moment_share_no_row() {
    let app = App::new().await;
    let other = another(&app).await;
    app.accept_all(emails(25)).await;
    let lease = app.hub.settings.timing.lease();

    let mut first = app.hub.store.begin_engine().await.unwrap();
    let mine = store::delivery::claim(&mut *first, &asks(&app.hub, 10).await, 10, Tsid(1), lease).await.unwrap();
    let theirs = grab(&other, 100).await;
    first.commit().await.unwrap();

    let mine: HashSet<DeliveryKey> = mine.into_iter().map(|c| c.key).collect();
    assert_eq!((mine.len(), theirs.len()), (10, 15));
    assert!(theirs.iter().all(|key| !mine.contains(key)));
    assert_eq!(app.count("select count(*) from deliveries where status = 'PROCESSING'").await, 25);
    assert!(grab(&other, 100).await.is_empty(), "PROCESSING is a lock: nobody takes it again");
    lose(&app).await;
    app.settle_all().await;
    stop(other).await;
    app.done().await;
}

/// S3-11: eight claim at once, again and again, until nothing is left: every delivery was claimed once.
#[tokio::test]
async fn many_claims_at_once_take_each_row_once() {
    let app = App::new().await;
    let other = another(&app).await;
    app.accept_all(emails(600)).await;
    let mut all: Vec<DeliveryKey> = Vec::new();
    loop {
        let claims = (0..8).map(|n| grab(if n % 2 == 0 { &app.hub } else { &other }, 11));
        let round: Vec<DeliveryKey> = join_all(claims).await.concat();
        if round.is_empty() {
            break;
        }
        all.extend(round);
    }
    assert_eq!(all.len(), 600);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 600);
    assert_eq!(app.count("select count(*) from deliveries where attempt = 1").await, 600);
    lose(&app).await;
    app.settle_all().await;
    stop(other).await;
    app.done().await;
}

/// S0-78, S3-3, S3-11, S3-37: two workers run against one database; every delivery is called once.
#[tokio::test]
async fn two_workers_call_each_delivery_once() {
    let app = App::with(&["--poll-idle-ms=20", "--poll-busy-ms=10", "--claim-batch=50"]).await;
    let other = another(&app).await;
    app.accept_all(slack_posts(800)).await;
    worker::start(&app.hub, Role::Worker);
    worker::start(&other, Role::Worker);
    until("all sent", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    let texts: BTreeMap<Option<String>, usize> =
        app.slack.records().into_iter().fold(BTreeMap::new(), |mut all, post| {
            *all.entry(post.text).or_default() += 1;
            all
        });
    assert_eq!(texts.len(), 800);
    assert!(texts.values().all(|n| *n == 1), "sent twice");
    let workers = "select count(distinct worker) from attempts where outcome = 'ACCEPTED'";
    assert!((1..=2).contains(&app.count(workers).await));
    stop(other).await;
    app.done().await;
}

/// One pass takes all that is due, however the classes and channels fill the batches.
#[tokio::test]
async fn a_pass_leaves_nothing_behind_whatever_fills_its_batches() {
    let app = App::with(&["--claim-batch=16", "--in-flight=64"]).await;
    for round in 0..6 {
        let mut bodies = emails(60 + round);
        bodies.extend(slack_posts(60));
        for (n, body) in bodies.iter_mut().enumerate() {
            body["priority"] = ["URGENT", "NORMAL", "BULK"][n % 3].into();
        }
        app.accept_all(bodies).await;
        // What is due became so before this look, and before the slack that watermarks keep.
        app.advance(1);
        app.work().await;
        let left = app.count("select count(*) from deliveries where status <> 'SENT'").await;
        assert_eq!(left, 0, "round {round}: a pass left deliveries behind");
    }
    app.done().await;
}

/// S3-14: hosts whose clocks differ write rows behind each other's watermarks; a sweep finds them.
#[tokio::test]
async fn what_appears_behind_the_watermark_is_found() {
    let app = App::with(&["--poll-idle-ms=20", "--poll-busy-ms=20"]).await;
    let ahead = Clock::manual(start_time() + TimeDelta::seconds(5));
    let other = another_with(&app, PoolSizes { api: 4, intake: 4, engine: 4, webhooks: 4 }, ahead).await;
    worker::start(&other, Role::Worker);
    app.accept(slack_post("before it looked")).await;
    until("the first", async || {
        other.clock.advance(TimeDelta::milliseconds(200));
        app.slack.records().len() == 1
    })
    .await;
    app.accept(slack_post("behind its watermark")).await;
    until("the second", async || {
        other.clock.advance(TimeDelta::milliseconds(200));
        app.slack.records().len() == 2
    })
    .await;
    until("settled", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    stop(other).await;
    app.done().await;
}

// ---- late and lost

/// S3-45: a delivery whose worker is lost is taken back and sent by another; the books tell of both attempts.
#[tokio::test]
async fn what_a_lost_worker_held_is_taken_back() {
    let app = App::new().await;
    let id = app.accept(email("kim@example.com")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(reap_all(&app.hub).await, 0, "its lease runs");
    assert_eq!(app.stands(&id).await.0, "PROCESSING");

    assert_eq!(lose(&app).await, 1);
    let delivery = app.delivery(&id).await;
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())));
    assert_eq!(delivery["possiblySent"], true, "mail is retried, so the call may have been made");
    assert_eq!(delivery["attempts"][0]["outcome"], "UNKNOWN");
    assert_eq!(delivery["attempts"][0]["errorReason"], "worker_lost");
    assert_eq!(app.events(&id).await, [""; 0], "nothing is promised to be told on the way");

    app.work().await;
    assert_eq!(app.stands(&id).await.0, "SENT");
    assert_eq!(app.outcomes(&id).await, ["UNKNOWN", "ACCEPTED"]);
    assert_eq!(app.events(&id).await, ["delivery.sent"]);
    assert_eq!(app.hub.metrics.reaped.get(), 1);
    app.done().await;
}

/// S3-45, fault A1: what loses every worker ends, and says so: that it may have been sent where no beginning is recorded,
/// and that it was not where the books prove it. It pauses for longer each time, and uses no attempt.
#[tokio::test]
async fn what_loses_every_worker_ends_and_says_so() {
    for (flags, status, outcome) in [
        (&["--retry-max-attempts=1"][..], "UNDETERMINED", "UNKNOWN"),
        (&["--retry-max-attempts=1", "--on-unknown=SLACK=hold"], "FAILED", "NOT_CALLED"),
    ] {
        let app = App::with(flags).await;
        let id = app.accept(slack_post("x")).await;
        assert_eq!(grab(&app.hub, 10).await.len(), 1);
        for deaths in 1..MAX_WORKERS_LOST {
            assert_eq!(lose(&app).await, 1);
            assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())), "{deaths}");
            assert!(grab(&app.hub, 10).await.is_empty(), "no claim of many takes it");
            if deaths > 1 {
                assert_eq!(grab_alone(&app.hub).await, None, "it pauses");
                app.advance(30 * 4_i64.pow(deaths as u32 - 2));
            }
            assert_eq!(grab_alone(&app.hub).await, Some(deaths));
        }
        assert_eq!(lose(&app).await, 1);
        assert_eq!(app.stands(&id).await, (status.into(), Some("workers_lost".into())));
        assert_eq!(app.outcomes(&id).await, [outcome; 6]);
        let told = format!("delivery.{}: workers_lost", status.to_lowercase());
        assert_eq!(app.events(&id).await, [told]);
        app.done().await;
    }
}

/// Fault A1: three workers are lost between claim and call, each with all that it could claim: no attempt is used, and all
/// hundred are sent, each by one call.
#[tokio::test]
async fn hundred_texts_whose_workers_are_lost_before_the_call_are_sent() {
    for flags in [&["--on-unknown=SLACK=hold"][..], &[]] {
        let app = App::with(flags).await;
        let mut ids = Vec::new();
        for n in 0..100 {
            ids.push(app.accept(slack_post(&format!("text {n}"))).await);
        }
        assert_eq!(grab(&app.hub, 500).await.len(), 100);
        assert_eq!(lose(&app).await, 100);
        for _ in 0..2 {
            assert_eq!(grab(&app.hub, 500).await.len(), 0, "they wait apart");
            assert_eq!(grab_alone(&app.hub).await, Some(1));
            assert_eq!(lose(&app).await, 1, "alone: it shares its fate with none");
        }
        app.settle_all().await;
        assert_eq!(app.count("select count(*) from deliveries where status = 'SENT'").await, 100);
        let texts: BTreeSet<String> = app.slack.records().into_iter().filter_map(|post| post.text).collect();
        assert_eq!((texts.len(), app.slack.records().len()), (100, 100), "each was called once");
        assert_eq!(app.count("select count(*) from attempts where called_at is not null").await, 100);
        let unused = "select count(*) from deliveries where max_attempts - attempt = 2";
        assert_eq!(app.count(unused).await, 100, "two of three attempts are left to each");
        app.done().await;
    }
}

/// Fault A1: what was lost with its worker is claimed alone until it is called; then it is a delivery like any other.
#[tokio::test]
async fn what_was_called_while_its_worker_lives_is_no_suspect_any_more() {
    let app = App::new().await;
    let id = app.accept(slack_post("x")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(lose(&app).await, 1);
    app.slack.script(Behaviour::Fail { status: 503, text: "service_unavailable".into() }, 1);
    assert_eq!(app.work().await, 1);
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("provider_error".into())));
    assert_eq!(app.count("select count(*) from suspects").await, 0);
    assert!(app.delivery(&id).await["nextAt"].is_string());

    // One that is canceled while it waits apart is forgotten, too.
    let id = app.accept(slack_post("y")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(lose(&app).await, 1);
    assert!(app.delivery(&id).await["nextAt"].is_null(), "nobody can say when its turn is");
    app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200);
    assert_eq!(app.stands(&id).await.0, "UNDETERMINED", "it may have been sent");
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from suspects").await, 0);
    app.done().await;
}

/// Fault A3: what the hub could not begin in time is tried again within seconds, however often that happened; the provider
/// is well, and its retry schedule has no part in it.
#[tokio::test]
async fn what_a_late_hub_did_not_begin_is_soon_tried_again() {
    for flags in [&[][..], &["--on-unknown=SLACK=hold"]] {
        let app = App::with(flags).await;
        let id = app.accept(slack_post("x")).await;
        let mut settings = app.hub.settings.clone();
        settings.timing.lease_ms = 1;
        let late = notihub::flow::start(Parts {
            settings,
            store: crate::support::store_of(&app.url, PoolSizes { api: 2, intake: 2, engine: 2, webhooks: 2 }),
            providers: app.hub.providers.clone(),
            clock: app.hub.clock.clone(),
            shutdown: Shutdown::new(),
            master_keys: vec![MASTER_KEY],
        })
        .await
        .unwrap();
        for _ in 0..12 {
            let asks = asks(&late, 10).await;
            let looks: Vec<PlannedClaim> = asks
                .iter()
                .map(|a| PlannedClaim { place: (a.shard, a.lane), from_ready_at: a.mark, rows: a.take })
                .collect();
            let ready = load(&late, claim(&late, late.next_id(), &looks, 10).await.unwrap()).await;
            let mut settles = ready.given_back;
            for held in ready.held {
                settles.push(call_one(&late, held).await);
            }
            assert_eq!(settles.len(), 1);
            settle(&app.hub, settles).await.unwrap();
            assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("not_begun".into())));
            let next: DateTime<Utc> = app.delivery(&id).await["nextAt"].as_str().unwrap().parse().unwrap();
            assert!(next - app.hub.clock.now() <= TimeDelta::seconds(1), "{next}");
            app.advance(1);
            let shards = store::partner::shards(app.hub.store.engine()).await.unwrap();
            assert_eq!(promote(&app.hub, &mut Promoter::default(), &shards).await.unwrap(), 1);
        }
        app.work().await;
        assert_eq!((app.stands(&id).await.0, app.slack.records().len()), ("SENT".into(), 1));
        let delivery = app.delivery(&id).await;
        assert_eq!((&delivery["attempt"], &delivery["maxAttempts"]), (&json!(13), &json!(15)), "none was used");
        stop(late).await;
        app.done().await;
    }
}

/// What became worthless, or was canceled, while a lost worker held it is not sent again; whether it was is not known.
#[tokio::test]
async fn a_lost_delivery_nobody_wants_any_more_ends() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["expiresAt"] = json!((start_time() + TimeDelta::seconds(60)).to_rfc3339());
    let (expired, canceled) = (app.accept(body).await, app.accept(email("lee@example.com")).await);
    assert_eq!(grab(&app.hub, 10).await.len(), 2);
    app.advance(61);
    app.post(&format!("/v1/messages/{canceled}/cancel"), json!({})).await.expect(200);
    assert_eq!(lose(&app).await, 2);
    for id in [expired, canceled] {
        assert_eq!(app.stands(&id).await.0, "UNDETERMINED");
        assert_eq!(app.events(&id).await, ["delivery.undetermined: worker_lost"]);
    }
    app.done().await;
}

/// S3-36: an answer that comes after the lease is over changes nothing but its own attempt.
#[tokio::test]
async fn a_late_refusal_is_kept_on_its_own_attempt_and_changes_no_head() {
    let app = App::new().await;
    let id = app.accept(slack_post("x")).await;
    app.slack.script(Behaviour::Fail { status: 404, text: "no_service".into() }, 1);
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    settle(&app.hub, vec![late.clone()]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())));
    assert_eq!(app.outcomes(&id).await, ["REJECTED late"]);
    assert_eq!(app.delivery(&id).await["attempts"][0]["errorCode"], "no_service");

    let next = take_alone(&app.hub).await;
    settle(&app.hub, vec![late.clone()]).await.unwrap();
    assert_eq!(app.stands(&id).await.0, "PROCESSING", "nor the head of its successor");
    let next = call_one(&app.hub, next).await;
    settle(&app.hub, vec![next]).await.unwrap();
    settle(&app.hub, vec![late]).await.unwrap();
    assert_eq!(app.stands(&id).await.0, "SENT", "nor an ending");
    assert_eq!(app.outcomes(&id).await, ["REJECTED late", "ACCEPTED"]);
    assert_eq!(app.events(&id).await, ["delivery.sent"]);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// A late yes is worth more than a doubt: whatever waits for its next try is not sent again.
#[tokio::test]
async fn a_late_acceptance_calls_off_what_waits() {
    let app = App::new().await;
    // SCHEDULED, apart from all others
    let id = app.accept(slack_post("pending")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    settle(&app.hub, vec![late.clone()]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.outcomes(&id).await, ["ACCEPTED late"]);
    assert_eq!(app.events(&id).await, ["delivery.sent: late_answer"]);
    settle(&app.hub, vec![late]).await.unwrap();
    assert_eq!(app.events(&id).await.len(), 1, "told once, however often it is said");

    // SCHEDULED: the second attempt was limited by the provider
    let id = app.accept(slack_post("scheduled")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    app.slack.script(Behaviour::Limit { retry_after: 30 }, 1);
    app.work().await;
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("throttled".into())));
    settle(&app.hub, vec![late]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.outcomes(&id).await, ["ACCEPTED late", "REJECTED"]);

    app.advance(3600);
    assert_eq!(app.work().await, 0, "no retry is left");
    assert_eq!(app.slack.records().len(), 2, "each was sent once");
    app.done().await;
}

/// UNDETERMINED is the one ending that evidence lifts.
#[tokio::test]
async fn a_late_acceptance_lifts_what_was_undetermined() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let id = app.accept(slack_post("x")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await.0, "UNDETERMINED");
    settle(&app.hub, vec![late]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.events(&id).await, ["delivery.undetermined: worker_lost", "delivery.sent: late_answer"]);
    assert_eq!(app.message(&id).await["status"], "COMPLETED");
    app.done().await;
}

/// A late yes that comes while the next attempt is under way is not forgotten when that attempt is refused.
#[tokio::test]
async fn a_late_acceptance_is_remembered_while_the_next_attempt_runs() {
    for (refusal, then) in [
        (Behaviour::Limit { retry_after: 30 }, "refused for now: a third call would be a second copy"),
        (Behaviour::Fail { status: 404, text: "no_service".into() }, "refused for good: the first was taken"),
    ] {
        let app = App::new().await;
        let id = app.accept(slack_post("x")).await;
        let late = call_one(&app.hub, take_one(&app.hub).await).await;
        assert_eq!(lose(&app).await, 1);
        app.slack.script(refusal, 1);
        let second = take_alone(&app.hub).await;
        settle(&app.hub, vec![late]).await.unwrap();
        assert_eq!(app.stands(&id).await.0, "PROCESSING");
        let second = call_one(&app.hub, second).await;
        settle(&app.hub, vec![second]).await.unwrap();
        app.settle_all().await;
        assert_eq!(app.stands(&id).await.0, "SENT", "{then}");
        assert_eq!(app.slack.records().len(), 1, "{then}");
        app.done().await;
    }
}

/// A settle whose answer was lost on the way is sent again: the second does nothing.
#[tokio::test]
async fn a_settle_that_is_repeated_changes_nothing() {
    let app = App::new().await;
    let sent = app.accept(slack_post("sent")).await;
    let first = call_one(&app.hub, take_one(&app.hub).await).await;
    let cut = app.accept(slack_post("cut")).await;
    app.slack.script(Behaviour::Cut, 1);
    let second = call_one(&app.hub, take_one(&app.hub).await).await;
    for _ in 0..2 {
        settle(&app.hub, vec![first.clone(), second.clone()]).await.unwrap();
    }
    assert_eq!((app.stands(&sent).await.0, app.outcomes(&sent).await), ("SENT".into(), vec!["ACCEPTED".into()]));
    assert_eq!(app.stands(&cut).await.0, "SCHEDULED");
    assert_eq!(app.outcomes(&cut).await, ["UNKNOWN"], "it was in time the first time");
    assert_eq!(app.events(&sent).await, ["delivery.sent"]);
    app.settle_all().await;
    app.done().await;
}

/// S3-36: the reaper and the worker want the same row at the same moment: whoever locks it first is heard, once.
#[tokio::test]
async fn a_settle_and_a_reap_at_the_same_moment_are_one_after_the_other() {
    let app = App::new().await;
    let over =
        "update deliveries set lease_until = clock_timestamp() - interval '1 second' where status = 'PROCESSING'";

    // The worker first: while its statement holds the row, the reaper passes over it.
    let first = app.accept(slack_post("first")).await;
    let done = call_one(&app.hub, take_one(&app.hub).await).await;
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    let mut worker = app.hub.store.begin_engine().await.unwrap();
    assert_eq!(store::delivery::settle(&mut *worker, &[done], app.hub.clock.now()).await.unwrap().len(), 1);
    assert_eq!(reap_all(&app.hub).await, 0);
    worker.commit().await.unwrap();
    assert_eq!(reap_all(&app.hub).await, 0);
    assert_eq!((app.stands(&first).await.0, app.outcomes(&first).await.len()), ("SENT".into(), 1));

    // The reaper first: the worker's statement waits for it, and then finds its fence gone.
    let second = app.accept(slack_post("second")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    let shards = store::partner::shards(app.hub.store.engine()).await.unwrap();
    let mut reaper = app.hub.store.begin_engine().await.unwrap();
    let overdue = store::delivery::overdue(&mut reaper, &shards, DateTime::UNIX_EPOCH, 10).await.unwrap();
    let [row] = <[_; 1]>::try_from(overdue).unwrap_or_else(|rows| panic!("{} overdue", rows.len()));
    let (outcome, step) = notihub::model::delivery::transition_after_lost_worker(
        &row.head,
        BeginRecord::NotKept,
        1,
        OnUnknown::Retry,
        app.hub.clock.now(),
    );
    let tried = late.tried.clone().unwrap();
    let tried = store::delivery::Tried { outcome: outcome.kind(), code: Some("worker_lost".into()), ..tried };
    let back = Settle { step, tried: Some(tried), provider: None, ..late.clone() };
    let finish = async {
        until("the worker waits", async || app.count("select count(*) from pg_locks where not granted").await > 0)
            .await;
        store::delivery::settle(&mut *reaper, &[back], app.hub.clock.now()).await.unwrap();
        reaper.commit().await.unwrap();
    };
    let (settled, ()) = tokio::join!(settle(&app.hub, vec![late]), finish);
    settled.unwrap();
    assert_eq!(app.outcomes(&second).await, ["ACCEPTED late"]);
    assert_eq!(app.stands(&second).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.slack.records().len(), 2);
    app.done().await;
}

// ---- hold

/// Where a second copy would do harm, a worker that is lost before its call was recorded leaves no doubt: sent again.
/// One that is lost after it leaves UNDETERMINED, and no second call.
#[tokio::test]
async fn a_held_channel_knows_whether_the_call_had_begun() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let id = app.accept(slack_post("x")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())));
    assert_eq!(app.delivery(&id).await["possiblySent"], false);
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED"]);

    let begun = take_alone(&app.hub).await;
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED", "IN_FLIGHT"], "recorded before the call");
    assert!(app.slack.records().is_empty());
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await, ("UNDETERMINED".into(), Some("worker_lost".into())));
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED", "UNKNOWN"]);
    app.advance(3600);
    assert_eq!(app.work().await, 0, "it is not sent twice");

    // The worker was only slow.
    let late = call_one(&app.hub, begun).await;
    settle(&app.hub, vec![late]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED", "ACCEPTED late"]);
    assert_eq!(app.events(&id).await, ["delivery.undetermined: worker_lost", "delivery.sent: late_answer"]);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// No beginning can be recorded on a lease that is over, and what is not recorded is not called.
#[tokio::test]
async fn a_held_channel_is_not_called_on_a_lease_that_is_over() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let id = app.accept(slack_post("x")).await;
    let mut settings = app.hub.settings.clone();
    settings.timing.lease_ms = 0;
    let hasty = notihub::flow::start(Parts {
        settings,
        store: crate::support::store_of(&app.url, PoolSizes { api: 2, intake: 2, engine: 2, webhooks: 2 }),
        providers: app.hub.providers.clone(),
        clock: app.hub.clock.clone(),
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap();
    assert!(take(&hasty, 10).await.is_empty(), "claimed, but not to be called");
    assert_eq!(app.outcomes(&id).await, [""; 0]);
    assert_eq!(reap_all(&app.hub).await, 1);
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED"]);
    app.settle_all().await;
    assert_eq!((app.stands(&id).await.0, app.slack.records().len()), ("SENT".into(), 1));
    stop(hasty).await;
    app.done().await;
}

// ---- given back

/// A worker that stops gives back what it has not called, as it was: the attempt is not counted against it.
#[tokio::test]
async fn what_is_given_back_keeps_its_attempts() {
    for flags in [&[][..], &["--on-unknown=SLACK=hold"]] {
        let app = App::with(flags).await;
        let other = another(&app).await;
        let id = app.accept(slack_post("x")).await;
        let held = take_one(&other).await;
        other.shutdown.stop();
        let back = call_one(&other, held).await;
        settle(&other, vec![back]).await.unwrap();
        let delivery = app.delivery(&id).await;
        assert_eq!(app.stands(&id).await, ("PENDING".into(), None));
        assert_eq!((&delivery["attempt"], &delivery["maxAttempts"]), (&json!(1), &json!(4)), "one more in its stead");
        assert_eq!(delivery["possiblySent"], false);
        assert_eq!(delivery["attempts"][0]["outcome"], "NOT_CALLED");
        assert_eq!(delivery["attempts"][0]["calledAt"], Value::Null, "{flags:?}");
        assert!(app.slack.records().is_empty());
        app.work().await;
        assert_eq!((app.stands(&id).await.0, app.slack.records().len()), ("SENT".into(), 1));
        stop(other).await;
        app.done().await;
    }
}

// ---- cancel

/// A claim that comes between a cancel's look and its write wins; the cancel is noted, and what was taken is SENT.
#[tokio::test]
async fn a_cancel_that_a_claim_overtakes_is_noted() {
    let app = App::new().await;
    let id = app.accept(slack_post("x")).await;
    let asks = asks(&app.hub, 1).await;
    let lease = app.hub.settings.timing.lease();
    let mut claiming = app.hub.store.begin_engine().await.unwrap();
    let claimed = store::delivery::claim(&mut *claiming, &asks, 1, Tsid(1), lease).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let path = format!("/v1/messages/{id}/cancel");
    let commit = async {
        until("the cancel waits for the row", async || {
            app.count("select count(*) from pg_locks where not granted").await > 0
        })
        .await;
        claiming.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(app.post(&path, json!({})), commit);
    let answer = answer.expect(200);
    assert_eq!((&answer.body["canceled"], &answer.body["cancelRequested"]), (&json!(0), &json!(1)));
    assert_eq!(app.stands(&id).await.0, "PROCESSING");

    // Its worker is lost before anybody knows whether it called; nobody wants it any more, so nobody tries again.
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await.0, "UNDETERMINED");
    app.done().await;
}

/// Cancels and workers at the same time, many times over: each message was sent or canceled, never both.
#[tokio::test]
async fn what_is_canceled_while_it_is_claimed_is_sent_or_canceled_never_both() {
    let app = App::new().await;
    let ids = app.accept_all(slack_posts(120)).await;
    // So that both happen, however busy the machine is.
    for held in take(&app.hub, 1).await {
        let outcome = call_one(&app.hub, held).await;
        settle(&app.hub, vec![outcome]).await.unwrap();
    }
    app.post(&format!("/v1/messages/{}/cancel", ids[119]), json!({})).await.expect(200);
    let cancels = async {
        for some in ids.chunks(4) {
            let paths: Vec<String> = some.iter().map(|id| format!("/v1/messages/{id}/cancel")).collect();
            for answer in join_all(paths.iter().map(|path| app.post(path, json!({})))).await {
                answer.expect(200);
            }
        }
    };
    let work = async {
        for _ in 0..30 {
            for held in take(&app.hub, 3).await {
                let outcome = call_one(&app.hub, held).await;
                settle(&app.hub, vec![outcome]).await.unwrap();
            }
        }
    };
    tokio::join!(cancels, work);
    app.settle_all().await;
    let sent: BTreeSet<Option<String>> = app.slack.records().into_iter().map(|post| post.text).collect();
    assert_eq!(sent.len(), app.slack.records().len(), "sent twice");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (n, id) in ids.iter().enumerate() {
        let status = app.stands(id).await.0;
        assert_eq!(sent.contains(&Some(format!("no {n}"))), status == "SENT", "{status}");
        *counts.entry(status).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<usize>(), 120);
    assert!(counts.keys().all(|status| status == "SENT" || status == "CANCELED"), "{counts:?}");
    assert!(counts["SENT"] > 0 && counts["CANCELED"] > 0, "both happened: {counts:?}");
    app.done().await;
}

/// What is noted on a delivery that is being called is honoured as soon as the provider says no.
#[tokio::test]
async fn a_cancel_during_a_call_ends_it_unless_the_provider_takes_it() {
    let app = App::new().await;
    for (then, ends) in [(Behaviour::Ok, "SENT"), (Behaviour::Limit { retry_after: 60 }, "CANCELED")] {
        app.slack.script(then, 1);
        let id = app.accept(slack_post("x")).await;
        let held = take_one(&app.hub).await;
        app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200);
        let outcome = call_one(&app.hub, held).await;
        settle(&app.hub, vec![outcome]).await.unwrap();
        assert_eq!(app.stands(&id).await.0, ends, "at once: it does not wait for a retry that nobody wants");
    }
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

// ---- promote and sweep

/// S3-14: what is scheduled goes when its time has come, not before; two promoters never promote the same row twice.
#[tokio::test]
async fn scheduled_deliveries_go_when_their_time_has_come() {
    let app = App::new().await;
    let other = another(&app).await;
    let later = |seconds: i64| (start_time() + TimeDelta::seconds(seconds)).to_rfc3339();
    let mut bodies = emails(1500);
    bodies.iter_mut().for_each(|body| body["scheduledAt"] = json!(later(3600)));
    app.accept_all(bodies).await;
    let mut body = slack_post("much later");
    body["scheduledAt"] = json!(later(3700));
    let much_later = app.accept(body).await;

    assert_eq!(promote_all(&app.hub).await, 0);
    app.advance(3599);
    assert_eq!(promote_all(&app.hub).await, 0);
    assert!(grab(&app.hub, 10).await.is_empty(), "what may not go is not claimed");
    app.advance(1);
    let (mine, theirs) = tokio::join!(promote_all(&app.hub), promote_all(&other));
    assert_eq!(mine + theirs, 1500);
    assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING'").await, 1500);
    assert_eq!(app.stands(&much_later).await.0, "SCHEDULED");
    app.settle_all().await;
    assert_eq!((app.smtp.records().len(), app.slack.records().len()), (1500, 1));
    stop(other).await;
    app.done().await;
}

/// What becomes worthless while it waits is never sent: where a worker claims it, and where none does.
#[tokio::test]
async fn what_becomes_worthless_while_it_waits_expires() {
    let app = App::new().await;
    let until = |seconds: i64| json!((start_time() + TimeDelta::seconds(seconds)).to_rfc3339());
    let mut soon = email("kim@example.com");
    soon["expiresAt"] = until(60);
    let mut in_time = email("lee@example.com");
    in_time["expiresAt"] = until(600);
    let (claimed, in_time) = (app.accept(soon.clone()).await, app.accept(in_time).await);
    app.advance(60);
    app.work().await;
    assert_eq!(app.stands(&claimed).await, ("EXPIRED".into(), Some("expired".into())));
    assert_eq!(app.outcomes(&claimed).await, ["NOT_CALLED"]);
    assert_eq!(app.stands(&in_time).await.0, "SENT");

    soon["expiresAt"] = until(120);
    let unclaimed = app.accept(soon).await;
    assert_eq!(sweep(&app.hub, &mut Sweeper::default()).await.unwrap(), 0);
    app.advance(60);
    assert_eq!(sweep(&app.hub, &mut Sweeper::default()).await.unwrap(), 1);
    assert_eq!(app.stands(&unclaimed).await, ("EXPIRED".into(), Some("expired".into())));
    assert_eq!(app.outcomes(&unclaimed).await, [""; 0]);
    assert_eq!(app.events(&unclaimed).await, ["delivery.expired: expired"]);
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}

/// The sweep goes through any backlog in slices and overlooks nothing, also where very many became ready in one moment.
#[tokio::test]
async fn the_sweep_overlooks_nothing_in_a_backlog() {
    let app = App::new().await;
    let to = |n: usize, who: &str| -> Vec<String> { (0..n).map(|n| format!("{who}{n}@example.com")).collect() };
    let at = |seconds: i64| json!((start_time() + TimeDelta::seconds(seconds)).to_rfc3339());
    let body = |to: Vec<String>| json!({"type": "TEST", "title": "t", "body": "b", "channels": [{"channel": "EMAIL", "to": to}]});
    app.accept(body(to(500, "early"))).await;
    // Promoted together, so ready in the same microsecond.
    let (mut stays, mut goes) = (body(to(600, "stays")), body(to(400, "goes")));
    (stays["scheduledAt"], goes["scheduledAt"], goes["expiresAt"]) = (at(60), at(60), at(120));
    app.accept(stays).await;
    let goes = app.accept(goes).await;
    app.advance(60);
    assert_eq!(promote_all(&app.hub).await, 1000);
    app.advance(60);
    let (mut sweeper, mut swept) = (Sweeper::default(), 0);
    for _ in 0..10 {
        swept += sweep(&app.hub, &mut sweeper).await.unwrap();
    }
    assert_eq!(swept, 400, "some were never looked at");
    assert_eq!(app.message(&goes).await["deliveries"][399]["status"], "EXPIRED");
    app.settle_all().await;
    app.done().await;
}

// ---- calls

/// A pass with room for one looks into every lane before it says that nothing is left.
#[tokio::test]
async fn a_pass_with_room_for_one_leaves_nothing_behind() {
    let app = App::with(&["--in-flight=1", "--claim-batch=1", "--fair-unfinished=1"]).await;
    let mut bulk = slack_posts(2);
    bulk.iter_mut().for_each(|post| post["priority"] = json!("BULK"));
    app.accept_all(bulk).await;
    app.accept(slack_post("normal")).await;
    assert_eq!(worker::deliver::deliver_due(&app.hub).await.unwrap(), 3);
    assert_eq!(app.slack.records().len(), 3);
    app.done().await;
}

/// S3-12: while providers are being called, no transaction is open and no connection is in use: a hub with a single
/// connection holds fifty calls and goes on claiming.
#[tokio::test]
async fn a_call_holds_neither_transaction_nor_connection() {
    let gate = Gate::new();
    let app = App::with_provider(&["--on-unknown=SLACK=hold"], gate.provider(Channel::Slack)).await;
    let narrow =
        another_with(&app, PoolSizes { api: 1, intake: 1, engine: 1, webhooks: 1 }, app.hub.clock.clone()).await;
    app.accept_all(slack_posts(50)).await;
    let look = async {
        until("all are being called", async || gate.came() == 50).await;
        let busy = "select count(*) from pg_stat_activity where datname = current_database() \
                    and application_name = 'notihub' and state <> 'idle'";
        until("no connection is in use", async || app.count(busy).await == 0).await;
        until("it is back in its pool", async || narrow.store.engine().num_idle() == 1).await;
        assert_eq!(narrow.store.engine().size(), 1);
        app.accept(email("meanwhile@example.com")).await;
        for held in take(&narrow, 10).await {
            let outcome = call_one(&narrow, held).await;
            settle(&narrow, vec![outcome]).await.unwrap();
        }
        assert_eq!(app.smtp.records().len(), 1, "the one connection served another delivery meanwhile");
        assert_eq!(app.count("select count(*) from attempts where outcome = 'IN_FLIGHT'").await, 50);
        gate.open();
    };
    let (claimed, ()) = tokio::join!(worker::deliver::deliver_due(&narrow), look);
    assert_eq!(claimed.unwrap(), 50);
    stop(narrow).await;
    app.done().await;
}

/// A provider that hangs holds up its own channel, up to what may be held of it, and nothing else.
#[tokio::test]
async fn a_provider_that_hangs_holds_up_its_own_channel_only() {
    let gate = Gate::new();
    let flags = ["--in-flight=8", "--poll-idle-ms=20", "--poll-busy-ms=20"];
    let app = App::with_provider(&flags, gate.provider(Channel::Slack)).await;
    app.accept_all(slack_posts(30)).await;
    worker::start(&app.hub, Role::Worker);
    until("the channel is full", async || gate.came() == 8).await;
    app.accept_all(emails(60)).await;
    until("all mails are out", async || app.smtp.records().len() == 60).await;
    assert_eq!(gate.came(), 8, "no more are held than may be");
    assert_eq!(app.count("select count(*) from deliveries where status = 'PROCESSING' and lane >= 6").await, 8);
    gate.open();
    until("all is sent", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    app.done().await;
}

/// A worker whose channel is full waits; it does not turn in circles. Its runtime has one thread here, so a loop that
/// never waits would let nothing else happen before its next look, which is a minute away.
#[test]
fn a_full_channel_does_not_keep_its_worker_busy() {
    let (done, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gate = Gate::new();
            let flags = ["--in-flight=8", "--poll-idle-ms=60000", "--poll-busy-ms=60000"];
            let app = App::with_provider(&flags, gate.provider(Channel::Slack)).await;
            app.accept_all(slack_posts(30)).await;
            worker::start(&app.hub, Role::Worker);
            until("the channel is full", async || gate.came() == 8).await;
            gate.open();
            until("all is sent", async || {
                app.count("select count(*) from deliveries where status <> 'SENT'").await == 0
            })
            .await;
            app.done().await;
        });
        done.send(()).unwrap();
    });
    let ended = heard.recv_timeout(Duration::from_secs(30));
    ended.expect("the worker turned in circles, or failed above");
}

/// An adapter that panics ends its own attempts only; it is called as often as attempts allow, and never said FAILED.
#[tokio::test]
async fn an_adapter_that_panics_harms_nobody_else() {
    let provider = stub(Channel::Slack, |letter| {
        let poison = letter.content.body.contains("poison");
        Box::pin(async move {
            assert!(!poison, "on purpose");
            Outcome::Accepted { provider_ref: None }
        })
    });
    let app = App::with_provider(&[], provider).await;
    let mut bodies = slack_posts(20);
    bodies.push(slack_post("poison"));
    let ids = app.accept_all(bodies).await;
    app.settle_all().await;
    let (poison, others) = ids.split_last().unwrap();
    assert_eq!(app.stands(poison).await, ("UNDETERMINED".into(), Some("sender_panicked".into())));
    assert_eq!(app.outcomes(poison).await, ["UNKNOWN"; 3]);
    for id in others {
        assert_eq!(app.outcomes(id).await, ["ACCEPTED"]);
    }
    app.done().await;
}

/// S3-13: an adapter that says no for good, no for now, or nothing: each ends as its kind of answer says.
#[tokio::test]
async fn every_kind_of_answer_leads_to_its_ending() {
    let provider = stub(Channel::Slack, |letter| {
        let rejected = |class| Outcome::Rejected { class, code: "x".into(), detail: String::new(), retry_after: None };
        let outcome = match letter.content.body.as_str() {
            "yes" => Outcome::Accepted { provider_ref: Some("ref".into()) },
            "never" => rejected(ErrorClass::Content),
            "later" => rejected(ErrorClass::ProviderInternal),
            "once later" if letter.attempt > 1 => Outcome::Accepted { provider_ref: None },
            "once later" => rejected(ErrorClass::Unreachable),
            _ => Outcome::Unknown { code: "no_answer", detail: String::new() },
        };
        Box::pin(std::future::ready(outcome))
    });
    let app = App::with_provider(&[], provider).await;
    for (says, status, reason, calls) in [
        ("yes", "SENT", None, 1),
        ("never", "FAILED", Some("content_refused"), 1),
        ("later", "FAILED", Some("provider_error"), 3),
        ("once later", "SENT", None, 2),
        ("nothing", "UNDETERMINED", Some("no_answer"), 3),
    ] {
        let id = app.accept(slack_post(says)).await;
        app.settle_all().await;
        assert_eq!(app.stands(&id).await, (status.into(), reason.map(str::to_owned)), "{says}");
        assert_eq!(app.outcomes(&id).await.len(), calls, "{says}");
    }
    app.done().await;
}

// ---- wake-ups

/// S3-14, S3-31, S3-41: nobody tells the worker anything, and it delivers: it looks by itself, as often as is set.
#[tokio::test]
async fn without_any_hint_polling_delivers() {
    let app = App::with(&["--poll-idle-ms=20", "--poll-busy-ms=20"]).await;
    let other = another(&app).await;
    worker::start(&other, Role::Worker);
    for n in 1..=3 {
        app.accept(slack_post(&format!("no {n}"))).await;
        until("delivered", async || app.slack.records().len() == n).await;
    }
    assert_eq!(app.hub.wake.take_for_others().places.len(), 1, "the hint lies here, untold");
    until("settled", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    stop(other).await;
    app.done().await;
}

/// A hint from another process wakes a worker whose next look is a minute away; so does the loss of hints.
#[tokio::test]
async fn a_hint_wakes_a_worker_elsewhere() {
    let app = App::with(&["--poll-idle-ms=60000", "--poll-busy-ms=60000"]).await;
    let other = another(&app).await;
    worker::start(&app.hub, Role::Api);
    worker::start(&other, Role::Worker);
    let listens = "select count(*) from pg_stat_activity where datname = current_database() \
                   and query like 'LISTEN%ready%' and state = 'idle'";
    until("it listens", async || app.count(listens).await == 1).await;
    until("it looked and found nothing", async || {
        other.metrics.claim_seconds.with_label_values::<&str>(&[]).get_sample_count() > 0
    })
    .await;
    app.accept(slack_post("told")).await;
    until("delivered", async || app.slack.records().len() == 1).await;

    // While nobody listens a message is missed; whoever listens again looks everywhere.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
               and query like 'LISTEN%ready%'";
    assert_eq!(app.count(cut).await, 1);
    app.accept(slack_post("missed")).await;
    until("delivered", async || app.slack.records().len() == 2).await;
    until("settled", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    stop(other).await;
    app.done().await;
}

// ---- fairness

const IN_OVERFLOW: &str = "select count(*) from deliveries where lane % 2 = 1";

/// What a partner has unfinished beyond its share waits in overflow lanes, single messages and batches alike; it is
/// delivered all the same; and once the work is done, what it posts is prompt again.
#[tokio::test]
async fn more_than_a_fair_share_waits_in_overflow() {
    let app = App::with(&["--fair-unfinished=50"]).await;
    app.accept_all(emails(60)).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 10);
    app.accept(email("one.more@example.com")).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 11);
    app.accept(slack_post("another channel has a share of its own")).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 11);
    app.settle_all().await;
    assert_eq!(app.smtp.records().len(), 61);

    app.advance(1);
    worker::start(&app.hub, Role::Api);
    until("it is seen that nothing waits", async || app.hub.fairness().lanes_to_check().is_empty()).await;
    app.accept_all(emails(50)).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 11);
    app.settle_all().await;
    app.done().await;
}

/// Processes tell each other whom they accept much from.
#[tokio::test]
async fn a_share_is_one_for_all_processes() {
    let app = App::with(&["--fair-unfinished=50"]).await;
    let other = another(&app).await;
    for hub in [&app.hub, &other] {
        worker::start(hub, Role::Api);
    }
    let listen = "select count(*) from pg_stat_activity where datname = current_database() \
                  and query like 'LISTEN%shares%' and state = 'idle'";
    until("both listen", async || app.count(listen).await == 2).await;
    app.accept_all(emails(50)).await;
    until("the other knows", async || !other.fairness().lanes_to_check().is_empty()).await;
    stop(other).await;
    app.settle_all().await;
    app.done().await;
}

/// A flood on a slow provider leaves room for somebody else, and goes on where nobody else is.
#[tokio::test]
async fn a_flood_leaves_room_for_others() {
    let gate = Gate::new();
    let flags = ["--fair-unfinished=2", "--in-flight=16"];
    let app = App::with_provider(&flags, gate.provider(Channel::Slack)).await;
    worker::start(&app.hub, Role::Both);
    app.accept_all(slack_posts(30)).await;
    until("the flood has what it may have", async || gate.came() == 14).await;
    // Its first ones are held and wait no more; what it posts further overflows all the same.
    app.advance(1);
    app.accept_all(slack_posts(10)).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 38);
    let small = Arc::new(notihub::model::partner::Partner::new(app.hub.next_id(), "small".into(), 3));
    store::partner::insert(app.hub.store.api(), &small, app.hub.clock.now()).await.unwrap();
    let body = slack_post("from somebody else").to_string();
    let message = notihub::model::intake::message(body.as_bytes(), &app.hub.intake_policy(&small)).unwrap();
    notihub::flow::intake::accept::accept(&app.hub, &small, message).await.unwrap();
    until("the other one's goes out", async || gate.came() == 15).await;
    let theirs = "select count(*) from deliveries join partners using (partner_id) \
                  where name = 'small' and deliveries.status = 'PROCESSING'";
    assert_eq!(app.count(theirs).await, 1);
    gate.open();
    until("all is sent", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    app.done().await;
}

// ---- the database stalls

/// A table that is locked for long stops nobody for good: callers are told 503, and loops go on when it is free.
#[tokio::test]
async fn a_locked_table_is_waited_for_briefly_and_survived() {
    let app = App::with(&["--poll-idle-ms=20", "--poll-busy-ms=20", "--reap-every-ms=100"]).await;
    app.accept(slack_post("before")).await;
    let mut locker = PgConnection::connect(&app.url).await.unwrap();
    sqlx::raw_sql("begin; lock table deliveries in share row exclusive mode").execute(&mut locker).await.unwrap();
    worker::start(&app.hub, Role::Worker);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
                 and query like '-- Claim%'";
    until("the claim waits", async || app.count(waits).await >= 1).await;
    app.post("/v1/messages", slack_post("meanwhile")).await.refused(503, "database_unavailable");
    let answer = app.post("/notifications", json!({"type": "T", "message": "m", "channels": ["SLACK"]})).await;
    assert_eq!(answer.refused(503, "database_unavailable").body["code"], "E102");
    assert!(app.slack.records().is_empty());
    sqlx::raw_sql("rollback").execute(&mut locker).await.unwrap();
    app.accept(slack_post("after")).await;
    until("all is sent", async || app.count("select count(*) from deliveries where status = 'SENT'").await == 2).await;
    app.done().await;
}

/// What a provider answered is kept in mind until it can be written, however long that takes: else what was taken would be
/// sent again.
#[tokio::test]
async fn an_answer_is_kept_until_it_can_be_written() {
    let gate = Gate::new();
    let app = App::with_provider(&["--reap-every-ms=600000"], gate.provider(Channel::Slack)).await;
    let id = app.accept(slack_post("x")).await;
    let mut settings = app.hub.settings.clone();
    // Shorter than any statement may wait for a lock.
    let timing = &mut settings.timing;
    (timing.call_budget_ms, timing.settle_budget_ms, timing.lease_margin_ms, timing.lease_ms) = (1000, 10, 10, 1500);
    let hasty = notihub::flow::start(Parts {
        settings,
        store: crate::support::store_of(&app.url, PoolSizes { api: 2, intake: 2, engine: 4, webhooks: 4 }),
        providers: app.hub.providers.clone(),
        clock: app.hub.clock.clone(),
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap();
    worker::start(&hasty, Role::Worker);
    until("it is called", async || gate.came() == 1).await;
    let mut locker = PgConnection::connect(&app.url).await.unwrap();
    sqlx::raw_sql("begin; lock table deliveries in share row exclusive mode").execute(&mut locker).await.unwrap();
    gate.open();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
                 and query like '-- Settle%'";
    until("the settle waits", async || app.count(waits).await == 1).await;
    until("its patience is over", async || app.count(waits).await == 0).await;
    sqlx::raw_sql("rollback").execute(&mut locker).await.unwrap();
    until("it is written", async || app.stands(&id).await.0 == "SENT").await;
    assert_eq!((gate.came(), app.outcomes(&id).await), (1, vec!["ACCEPTED".to_owned()]));
    stop(hasty).await;
    app.done().await;
}

// ---- plans

/// One of the engine's statements, prepared as the engine prepares it and explained with these arguments.
struct Plan {
    name: &'static str,
    /// Each node: its kind, the index or table it reads, and how many rows it threw away.
    nodes: Vec<(String, String, i64)>,
    buffers: i64,
    rows: i64,
}

async fn explain(conn: &mut PgConnection, name: &'static str, args: &str) -> Plan {
    let file = format!("{}/sql/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut tx = conn.begin().await.unwrap();
    let prepare = format!("prepare explained as {text}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *tx).await.unwrap();
    let explain = format!("explain (analyze, buffers, costs off, format json) execute explained({args})");
    let plan: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_one(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    sqlx::raw_sql("deallocate explained").execute(conn).await.unwrap();
    let top = &plan[0]["Plan"];
    let blocks = |name: &str| top[name].as_i64().unwrap();
    let mut nodes = Vec::new();
    walk(top, &mut nodes);
    Plan {
        name,
        nodes,
        buffers: blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"),
        rows: top["Actual Rows"].as_i64().unwrap(),
    }
}

fn walk(node: &Value, nodes: &mut Vec<(String, String, i64)>) {
    let text = |name: &str| node[name].as_str().map(str::to_owned);
    let reads = text("Index Name").or(text("Relation Name")).unwrap_or_default();
    let thrown = ["Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter"];
    let thrown = thrown.iter().map(|name| node[*name].as_i64().unwrap_or(0)).sum();
    nodes.push((text("Node Type").unwrap(), reads, thrown));
    node["Plans"].as_array().into_iter().flatten().for_each(|child| walk(child, nodes));
}

impl Plan {
    /// Reads tables only through these indexes (as the parent tables name them), throws almost nothing away, and touches
    /// at most so many blocks.
    #[track_caller]
    fn reads_only(&self, indexes: &BTreeMap<String, String>, allowed: &[&str], buffers_max: i64) {
        let Plan { name, nodes, buffers, .. } = self;
        let mut used = 0;
        for (kind, reads, thrown) in nodes {
            assert!(!kind.contains("Seq Scan"), "{name} reads all of {reads}: {nodes:#?}");
            assert!(!kind.contains("Hash Join") && !kind.contains("Merge Join"), "{name} joins by {kind}: {nodes:#?}");
            assert!(reads.is_empty() || *thrown <= 5, "{name} throws away {thrown} rows of {reads}: {nodes:#?}");
            if kind.starts_with("Index") || kind.starts_with("Bitmap Index") {
                // One of a table without partitions is its own.
                let parent = indexes.get(reads).unwrap_or(reads);
                assert!(allowed.contains(&parent.as_str()), "{name} reads {parent} instead of {allowed:?}");
                used += 1;
            }
        }
        assert!(used > 0, "{name} reads no index: {nodes:#?}");
        assert!(*buffers <= buffers_max, "{name} touched {buffers} blocks for {} rows: {nodes:#?}", self.rows);
    }
}

/// Fills the tables as they are after months: fifteen weeks of partitions, a million deliveries settled.
async fn months(app: &App) -> sqlx::PgPool {
    let (hub, db) = (&app.hub, app.db().await);
    for week in 0..10 {
        let then = hub.clock.now() + TimeDelta::weeks(week);
        store::partition::maintain(&hub.store, then, DateTime::UNIX_EPOCH).await.unwrap();
    }
    let (partner, shard) = (app.partner.partner_id.0, app.partner.shard);
    for week in 0..12 {
        let at: DateTime<Utc> = hub.clock.now() + TimeDelta::weeks(week);
        let first = Tsid::floor(at).0;
        let fill = format!(
            "with n as (select {first} + n * 4096 as id, timestamptz '{at}' as at from generate_series(1, 84000) as n),
             m as (insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at)
               select {shard}, id, {partner}, 'T', 'NORMAL', '{{\"contents\": [{{\"body\": \"b\"}}]}}', at from n),
             d as (insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, event_seq, status,
                 partner_id, ready_at, settled_at, recipient, provider)
               select {shard}, id, 1, 2, 1, 3, 0, 1, 'SENT', {partner}, at, at, 'a@example.com', 'smtp' from n),
             a as (insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, ended_at)
               select {shard}, id, 1, 1, 'ACCEPTED', 1, at, at from n),
             c as (insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
               values ({partner}, timestamptz '{at}', 2, 84000, 84000, 0))
             insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
               select {shard}, id, 1, 1, 1, 'delivery.sent', at from n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&db).await.unwrap();
    }
    db
}

/// What the planner believes of the tables: as they were before they were filled, as they are, nothing.
const STATISTICS: [&str; 3] = ["of empty tables", "of full tables", "none"];

async fn make_statistics(db: &sqlx::PgPool, statistics: &str) {
    let sql = match statistics {
        "of full tables" => "analyze",
        "none" => {
            "delete from pg_statistic; update pg_class set reltuples = -1, relpages = 0 \
             where relkind in ('r', 'i', 'p', 'I') and relnamespace = 'public'::regnamespace"
        }
        _ => "",
    };
    sqlx::raw_sql(sql).execute(db).await.unwrap();
}

/// Which index of the parent table each partition's index belongs to.
async fn indexes(db: &sqlx::PgPool) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, p.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         join pg_class p on p.oid = i.inhparent where p.relkind = 'I'",
    )
    .fetch_all(db)
    .await
    .unwrap();
    rows.into_iter().collect()
}

/// The hot statements keep their plans whatever the statistics say: of empty tables, of full ones, or none at all. Each
/// goes by the index that was made for it, in every partition, and touches as much as it brings, not as much as there is.
#[tokio::test]
async fn hot_statements_go_by_their_indexes_whatever_the_statistics_say() {
    let app = App::new().await;
    let hub = &app.hub;
    let shard = app.partner.shard;
    sqlx::raw_sql("analyze").execute(&app.db().await).await.unwrap();
    let db = months(&app).await;
    let indexes = indexes(&db).await;
    assert!(app.count("select count(*) from pg_inherits where inhparent = 'deliveries'::regclass").await > 14);
    assert!(app.count("select count(*) from deliveries").await >= 1_000_000);

    // Of each kind two hundred that are live: waiting, held with a lease that is over, held, and due.
    app.accept_all(emails(200)).await;
    grab(hub, 200).await;
    sqlx::query("update deliveries set lease_until = clock_timestamp() - interval '1 s' where status = 'PROCESSING'")
        .execute(&db)
        .await
        .unwrap();
    let mut scheduled = slack_posts(200);
    scheduled.iter_mut().for_each(|b| b["scheduledAt"] = json!((start_time() + TimeDelta::seconds(5)).to_rfc3339()));
    app.accept_all(scheduled).await;
    app.accept_all(slack_posts(200)).await;
    let held: Vec<(i64, i16)> =
        sqlx::query_as("select message_id, attempt from deliveries where status = 'PROCESSING' order by 1")
            .fetch_all(&db)
            .await
            .unwrap();
    let ids = held.iter().map(|row| row.0.to_string()).collect::<Vec<_>>();
    let (low, high) = (&ids[0], &ids[ids.len() - 1]);
    let many = |value: &str| format!("array_fill({value}, array[{}])", ids.len());
    let keys =
        format!("{}, array[{}]::bigint[], {}", many(&format!("{shard}::smallint")), ids.join(","), many("1::smallint"));
    let none = many("null::text");
    let now = format!("timestamptz '{}'", hub.clock.now());

    let lanes = Lane::all_of(&hub.providers.channels()).iter().map(|l| l.0.to_string()).collect::<Vec<_>>();
    let each = |value: &str| format!("array_fill({value}, array[{}])", lanes.len());
    let claim = format!(
        "{}, array[{}]::smallint[], {}, {}, 100, 1, 30, {}",
        each(&format!("{shard}::smallint")),
        lanes.join(","),
        each("timestamptz '1970-01-01'"),
        each("100::bigint"),
        each("false"),
    );
    let settle = format!(
        "{keys}, {}, {}, {}, {}, {}, {}, {}, {none}, {}, {}, {}, {}, {}, {none}, {none}, {none}, {now}, {low}, {high}, {}, {}, {}, {}, array[{}]::bigint[], 10::smallint, {}",
        many("1::smallint"),
        many("'PROCESSING'::text"),
        many("'SENT'::text"),
        many("null::timestamptz"),
        many("false"),
        many("false"),
        many("'delivery.sent'::text"),
        many("'smtp'::text"),
        many("'ACCEPTED'::text"),
        many("1::bigint"),
        many(&now),
        many(&now),
        many("false"),
        many("1::smallint"),
        many("1::smallint"),
        many("0::smallint"),
        ids.join(","),
        many("null::timestamptz"),
    );
    // What an endpoint got, of which little waits for another try.
    let to_endpoint = format!(
        "insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, status, partner_id, ready_at,
           settled_at, recipient)
         select {shard}, {} + n, 1, 68, 1, 10, 0, (case when n % 100 = 0 then 'SCHEDULED' else 'SENT' end)::delivery_status,
           {}, {now} + interval '1 h', case when n % 100 <> 0 then {now} end, 'endpoint' from generate_series(1, 20000) as n",
        Tsid::floor(hub.clock.now() + TimeDelta::hours(1)).0,
        app.partner.partner_id.0,
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(to_endpoint)).execute(&db).await.unwrap();
    let along = format!("{shard}::smallint, 'endpoint', {}, 0, {}, 1000", Tsid::floor(start_time()).0, i64::MAX);
    let (hasten, waiting) = (format!("{along}, 100, {now}, 'infinity'"), format!("{along}, {now}, 'infinity'"));

    let overdue = format!("array[{shard}]::smallint[], '1970-01-01', 100");
    let promote = format!("array[{shard}]::smallint[], '1970-01-01', {now} + interval '5 s', 100");
    let contents =
        format!("{}, array[{}]::bigint[], {low}, {high}", many(&format!("{shard}::smallint")), ids.join(","));
    let begin = format!(
        "{keys}, {}, 1, {now}, {now}, {}, {low}, {high}, 'PROCESSING', 15",
        many("1::smallint"),
        many("'x'::text")
    );
    let evidence =
        format!("{keys}, {now}, '{{SCHEDULED,PENDING,UNDETERMINED}}', '{{1,1,0}}', '{{1,1,1}}', '{{0,0,0}}'");

    // Keys of half of all messages, the other half's erased.
    let keys_taken =
        "with even as (select shard, partner_id, message_id from messages where (message_id / 4096) % 2 = 0)
         insert into idempotency (shard, partner_id, client_msg_id, message_id, fingerprint)
         select shard, partner_id, 'key' || message_id, message_id, '\\x00' from even;
         insert into erased_keys (partner_id, key_hash, message_id, fingerprint)
         select partner_id, sha256(message_id::text::bytea), message_id, '\\x00' from messages
         where (message_id / 4096) % 2 = 1";
    sqlx::raw_sql(keys_taken).execute(&db).await.unwrap();
    let first: i64 =
        sqlx::query_scalar("select min(message_id) from messages where kind = 'T'").fetch_one(&db).await.unwrap();
    let of = |n: i64| first + n * 4096;
    let (texts, hashes): (Vec<_>, Vec<_>) =
        (0..200).map(|n| (format!("'key{}'", of(n)), format!("sha256('{}'::bytea)", of(n)))).unzip();
    let find = format!(
        "{}, {}, array[{}]::text[], array[{}]::bytea[]",
        many(&format!("{shard}::smallint")),
        many(&format!("{}::bigint", app.partner.partner_id.0)),
        texts.join(","),
        hashes.join(","),
    );

    let mut conn = hub.store.engine().acquire().await.unwrap();
    let mut intake = hub.store.intake().acquire().await.unwrap();
    for statistics in STATISTICS {
        make_statistics(&db, statistics).await;
        println!("statistics: {statistics}");
        let plan = explain(&mut intake, "idempotency/find", &find).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(
            &indexes,
            &["uk_message_partner_client_msg", "pk_erased_keys", "pk_messages", "idx_message_partner_id"],
            200 * 20,
        );
        let plan = explain(&mut conn, "delivery/claim", &claim).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 100);
        plan.reads_only(&indexes, &["idx_delivery_claim", "pk_deliveries"], 100 * 40);
        let plan = explain(&mut conn, "delivery/settle", &settle).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_deliveries", "pk_attempts", "idx_endpoint_hears"], 200 * 40);
        let plan = explain(&mut conn, "delivery/overdue", &overdue).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 100);
        plan.reads_only(&indexes, &["idx_delivery_reap", "pk_attempts", "pk_suspects"], 100 * 40);
        let plan = explain(&mut conn, "delivery/promote", &promote).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 100);
        plan.reads_only(&indexes, &["idx_delivery_promote", "pk_deliveries"], 100 * 40);
        let plan = explain(&mut conn, "message/contents", &contents).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_messages"], 200 * 10);
        let plan = explain(&mut conn, "attempt/begin", &begin).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        plan.reads_only(&indexes, &["pk_deliveries"], 200 * 40);
        let plan = explain(&mut conn, "delivery/lock", &keys).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_deliveries"], 200 * 40);
        let plan = explain(&mut conn, "delivery/evidence", &evidence).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        plan.reads_only(&indexes, &["pk_deliveries", "pk_attempts", "idx_endpoint_hears"], 200 * 40);
        let plan = explain(&mut conn, "delivery/hasten", &hasten).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 10);
        plan.reads_only(&indexes, &["idx_delivery_endpoint", "pk_deliveries"], 1_000 * 2);
        let plan = explain(&mut conn, "delivery/waiting", &waiting).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        // Of a partition that it believes to be empty it takes whichever.
        plan.reads_only(&indexes, &["idx_delivery_endpoint", "pk_deliveries"], 1_000 * 2);
    }
    drop((conn, intake));
    sqlx::raw_sql(
        "delete from erased_keys; delete from idempotency where client_msg_id like 'key%'; \
         delete from deliveries where recipient = 'endpoint'",
    )
    .execute(&db)
    .await
    .unwrap();
    app.advance(10);
    lose(&app).await;
    app.settle_all().await;
    app.done().await;
}

/// Fault A1, its sibling: after a worker was lost a channel's deliveries do not wait for those of another, whose calls hang.
#[tokio::test]
async fn suspects_of_a_channel_do_not_wait_for_anothers() {
    let app = App::with(&["--mock=SMS"]).await;
    app.slack.script(Behaviour::Hang, 3);
    app.accept_all(slack_posts(3)).await;
    grab(&app.hub, 3).await;
    let text = json!({"type": "T", "body": "b", "channels": [{"channel": "SMS", "to": "010-1234-5678"}]});
    let id = app.post("/v1/messages", text).await.expect(202).id();
    grab(&app.hub, 1).await;
    lose(&app).await;
    worker::start(&app.hub, Role::Worker);
    let sent = async { while app.message(&id).await["status"] != "COMPLETED" {} };
    tokio::time::timeout(Duration::from_secs(10), sent)
        .await
        .expect("three calls that hang take longer, one after the other");
    app.done().await;
}

/// Fault A2: what the order of webhooks is read from is found at the same cost after a history of fifty thousand webhooks of
/// the endpoint, beside as many recipients, whatever the statistics say.
#[tokio::test]
async fn the_order_of_webhooks_is_read_from_open_ones_whatever_the_history() {
    let app = App::new().await;
    let (hub, db) = (&app.hub, app.db().await);
    let (partner, shard) = (app.partner.partner_id.0, app.partner.shard);
    sqlx::raw_sql("analyze").execute(&db).await.unwrap();
    for week in 0..10 {
        let then = hub.clock.now() + TimeDelta::weeks(week);
        store::partition::maintain(&hub.store, then, DateTime::UNIX_EPOCH).await.unwrap();
    }
    let now = format!("timestamptz '{}'", hub.clock.now());
    // Events of messages, three each: settled ones of the endpoint and of as many others, in four weeks; then open ones.
    let events = |from: Tsid, messages: i64, recipient: &str, status: &str, ready_at: &str| {
        format!(
            "insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, status, partner_id, ready_at,
               settled_at, recipient, about, told_at)
             select {shard}, {from} + m * 40960 + e * 4096, 1, 68, 1, 10, 0, ({status})::delivery_status, {partner}, {ready_at},
               {now}, {recipient}, {from} + m * 40960, {now} + e * interval '1 ms'
             from generate_series(1, {messages}) as m, generate_series(1, 3) as e",
            from = from.0
        )
    };
    let week = |n| Tsid::floor(hub.clock.now() + TimeDelta::weeks(n));
    for n in 0..4 {
        let settled = events(week(n), 4_200, "'endpoint'", "'SENT'", &now);
        sqlx::raw_sql(sqlx::AssertSqlSafe(settled)).execute(&db).await.unwrap();
        let others = events(Tsid(week(n).0 + 2048), 4_200, "'endpoint' || m", "'SENT'", &now);
        sqlx::raw_sql(sqlx::AssertSqlSafe(others)).execute(&db).await.unwrap();
    }
    let behind = format!("timestamptz '{READY_WHEN_PREDECESSOR_ENDS}'");
    let open = events(
        week(4),
        300,
        "'endpoint'",
        "case e when 1 then 'SENT' else 'SCHEDULED' end",
        &format!("case e when 1 then {now} else {behind} end"),
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(open)).execute(&db).await.unwrap();
    let old = events(week(5), 30, "'endpoint'", "'SCHEDULED'", &behind);
    sqlx::raw_sql(sqlx::AssertSqlSafe(old)).execute(&db).await.unwrap();
    let old = format!(
        "update deliveries set about = null, told_at = null, settled_at = null where message_id > {}",
        week(5).0
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(old)).execute(&db).await.unwrap();
    let indexes = indexes(&db).await;

    let many = |value: &str| format!("array_fill({value}, array[200])");
    let ids =
        |of: i64| (1..=200).map(|m| (week(4).0 + m * 40_960 + of * 4_096).to_string()).collect::<Vec<_>>().join(",");
    let (abouts, first) = (ids(0), ids(1));
    let (shards, day) = (many(&format!("{shard}::smallint")), Tsid::span(TimeDelta::days(1)));
    let last = week(4).0 + 200 * 40_960 + 3 * 4_096;
    let sequences = format!(
        "{shards}, array[{abouts}]::bigint[], {}, {}, {day}, {last}",
        many("'endpoint'::text"),
        many("2::bigint")
    );
    let release_next = format!(
        "{shards}, array[{first}]::bigint[], {}, {}, {behind}, {now}, {}, {last}, 'SCHEDULED', {day}",
        many("1::smallint"),
        many("1::bigint"),
        week(4).0,
    );
    let stalled = format!("{shard}::smallint, 0, 100, {behind}");
    let fill = format!("array[{shard}]::smallint[], 50");
    let release = format!("{shard}::smallint, 'endpoint', {behind}, {now}, 100");

    let mut conn = hub.store.webhooks().acquire().await.unwrap();
    for statistics in STATISTICS {
        make_statistics(&db, statistics).await;
        println!("statistics: {statistics}");
        for (name, args, rows, reads, buffers) in [
            ("delivery/sequences", &sequences, 400, ["idx_delivery_sequence", ""], 200 * 20),
            ("delivery/release_next", &release_next, 200, ["idx_delivery_sequence", "pk_deliveries"], 200 * 60),
            ("delivery/stalled", &stalled, 50, ["idx_delivery_sequence", ""], 100 * 5),
            ("delivery/fill_about", &fill, 0, ["idx_delivery_sequence", "pk_deliveries"], 50 * 60),
            ("delivery/release", &release, 100, ["idx_delivery_promote", "pk_deliveries"], 100 * 60),
        ] {
            let plan = explain(&mut conn, name, args).await;
            println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
            let plan_rows = plan.rows;
            assert!(plan_rows >= rows, "{name}: {plan_rows} rows of {rows}");
            plan.reads_only(&indexes, &[reads[0], reads[1], "pk_messages"], buffers);
        }
    }
    drop(conn);
    sqlx::raw_sql("delete from deliveries").execute(&db).await.unwrap();
    app.done().await;
}
