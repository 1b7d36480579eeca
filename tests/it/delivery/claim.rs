//! Claims: two workers share no row, a pass leaves nothing behind, and rows behind a watermark are found.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use notihub::clock::Clock;
use notihub::id::Tsid;
use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::{DeliveryKey, Outcome};
use notihub::provider::{BoxFuture, Provider, SendRequest};
use notihub::store::{self, PoolSizes};
use notihub::worker::{self, Role};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::app::{App, emails, settings, slack_post, slack_posts, start_time};
use crate::support::hubs::{another, another_with, asks, grab, lose, stop};
use crate::support::notification::{deliveries, notification, order_completed, payment_failed};
use crate::support::wait::until;

/// S3-11, S3-36: a claim passes over what another claim holds, committed or not, without waiting for it.
#[tokio::test]
async fn claim_beside_an_open_claim_shares_no_row() {
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
async fn claims_at_the_same_moment_take_each_row_once() {
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
async fn workers_on_one_database_call_each_delivery_once() {
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
    let workers = "select count(distinct worker) from attempt_history where outcome = 'ACCEPTED'";
    assert!((1..=2).contains(&app.count(workers).await));
    stop(other).await;
    app.done().await;
}

/// One pass takes all that is due, however the classes and channels fill the batches.
#[tokio::test]
async fn pass_with_full_batches_claims_all_that_is_due() {
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
async fn delivery_behind_the_watermark_is_found_by_the_sweep() {
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

/// A pass with room for one looks into every lane before it says that nothing is left.
#[tokio::test]
async fn pass_with_room_for_one_claims_all_that_is_due() {
    let app = App::with(&["--in-flight=1", "--claim-batch=1", "--fair-unfinished=1"]).await;
    let mut bulk = slack_posts(2);
    bulk.iter_mut().for_each(|post| post["priority"] = json!("BULK"));
    app.accept_all(bulk).await;
    app.accept(slack_post("normal")).await;
    assert_eq!(worker::deliver::deliver_due(&app.hub).await.unwrap(), 3);
    assert_eq!(app.slack.records().len(), 3);
    app.done().await;
}

/// A provider whose calls begin, and end when the test opens the gate.
struct Gate {
    entered: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new() -> Arc<Gate> {
        Arc::new(Gate { entered: Semaphore::new(0), open: Semaphore::new(0) })
    }
}

impl Provider for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Email)]
    }

    fn send<'a>(&'a self, _letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.entered.add_permits(1);
            self.open.acquire().await.unwrap().forget();
            Outcome::Accepted { provider_ref: None }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("a gate".to_owned()) })
    }
}

/// S3-11, S3-12, S3-36, S3-45: while one worker sends, the delivery is PROCESSING and no other worker takes it; the
/// sending holds no transaction, and no connection waits in one. A worker holds deliveries under a lease, so a crash
/// leaves nothing PROCESSING for good.
#[tokio::test]
async fn processing_delivery_is_locked_and_sent_outside_of_any_transaction() {
    let gate = Gate::new();
    let app = App::with_provider(&[], gate.clone()).await;
    let id = app.post("/notifications", payment_failed()).await.expect(202).id();
    let during = async {
        gate.entered.acquire().await.unwrap().forget();
        let answer = notification(&app, &id).await;
        assert_eq!((deliveries(&answer)[0], &answer["status"]), (("EMAIL", "PROCESSING"), &json!("PROCESSING")));
        assert_eq!(app.work().await, 0, "another worker finds nothing to take");
        let held = "select count(*) from deliveries where status = 'PROCESSING' and attempt = 1 and worker is not null \
                    and lease_until between clock_timestamp() and clock_timestamp() + interval '30 s'";
        assert_eq!(app.count(held).await, 1);
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
                    and pid <> pg_backend_pid() and (xact_start is not null or backend_xid is not null)";
        assert_eq!(app.count(open).await, 0, "a transaction is open while a provider is being called");
        gate.open.add_permits(1);
    };
    let (claimed, ()) = tokio::join!(app.work(), during);
    assert_eq!(claimed, 2);
    let answer = notification(&app, &id).await;
    assert_eq!(deliveries(&answer), [("EMAIL", "SUCCESS"), ("SLACK", "SUCCESS")]);
    app.done().await;
}

/// S3-11: workers that claim at the same time share the deliveries out; each is sent once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claims_of_two_workers_share_deliveries_out() {
    const N: usize = 300;
    let app = App::with(&["--claim-batch=7"]).await;
    let one = |n: usize| {
        json!({"type": "A", "title": "t", "body": "b", "channels": [{"channel": "EMAIL",
        "to": format!("{n}@example.com")}]})
    };
    let all: Vec<Value> = (0..N).map(one).collect();
    app.post("/v1/messages/batch", json!({"messages": all})).await.expect(202);
    let claimed = tokio::join!(app.work(), app.work(), app.work(), app.work());
    assert_eq!(claimed.0 + claimed.1 + claimed.2 + claimed.3, N as u64);
    let to: Vec<String> = app.smtp.records().into_iter().flat_map(|m| m.to).collect();
    assert_eq!((to.len(), to.iter().collect::<BTreeSet<_>>().len()), (N, N), "each once");
    assert_eq!(
        app.count("select count(*) from attempt_history where attempt = 1 and outcome = 'ACCEPTED'").await,
        N as i64
    );
    app.done().await;
}

/// S3-3, S3-14, S3-31, S3-41: a worker looks for PENDING deliveries in a period that is a setting, also without any
/// hint.
#[tokio::test]
async fn worker_without_hints_polls_in_the_set_period() {
    for period in ["3000", "5000", "10000"] {
        assert_eq!(settings(&[&format!("--poll-idle-ms={period}")]).work.poll_idle_ms.to_string(), period);
    }
    let app = App::with(&["--poll-idle-ms=10", "--poll-busy-ms=10", "--promote-every-ms=60000"]).await;
    let mut body = order_completed();
    body["scheduledAt"] = json!("2027-03-06T00:00:00Z");
    let id = app.post("/notifications", body).await.expect(202).id();
    worker::start(&app.hub, Role::Worker);
    let looks = || app.hub.metrics.claim_seconds.with_label_values::<&str>(&[]).get_sample_count();
    while looks() == 0 {
        app.get("/healthz").await.expect(200);
    }
    // Another process might have done this, without a word.
    let quietly = "update deliveries set status = 'PENDING', ready_at = '2027-03-05T00:30:00Z'";
    sqlx::query(quietly).execute(&app.db().await).await.unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(20), async {
        while notification(&app, &id).await["status"] != "COMPLETED" {}
    });
    sent.await.expect("the worker to find it");
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}
