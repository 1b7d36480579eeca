//! Circuit breakers: opened by the provider's own trouble, probed, and closed step by step.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use notihub::flow::delivery::route::downtime;
use notihub::model::capability::{Capability, Terms};
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::provider::{Account, BoxFuture, Provider, SendRequest};
use notihub::worker;
use serde_json::json;

use crate::provider::{Calls, Says, Stub, end, good, no};
use crate::support::app::App;
use crate::support::hubs::{another, stop};

/// S1-54: for a minute everything is refused with the provider's own trouble. While open it is asked by one probe at a
/// time, afterwards by few at once; every message ends well.
#[tokio::test]
async fn breaker_opened_by_a_storm_loses_no_message() {
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
    let held = app.timeline(&ids[200], "breaker").await;
    assert!(held.len() == 1 && held[0].contains("provider_error"), "{held:?}");
    says.set(good());
    app.settle_all().await;
    stop(other).await;
    assert_eq!(app.provider("stormy").await["status"], "UP");
    assert!(downtime(&app.hub, Channel::Slack).is_none());
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    let called = "select count(*) from attempt_history where called_at is not null and shard >= 0";
    assert_eq!(app.count(called).await as usize, calls.count());
    assert!(app.metrics().await.text.contains("notihub_breaker_openings_total"), "S1-41");
    app.done().await;
}

/// No thundering herd: waiting deliveries go one at a time, then two, four and so on at once.
#[tokio::test]
async fn breaker_of_a_recovered_provider_admits_few_at_first() {
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
        fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
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
        fn check(&self) -> BoxFuture<'_, Result<String, String>> {
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
async fn breaker_opened_by_credentials_keeps_the_messages() {
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
    // An operator who corrected the key need not wait for the next probe.
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
async fn breaker_is_not_opened_by_faults_of_recipients() {
    let (says, calls) = (Says::new(no(ErrorClass::Address)), Calls::default());
    let stub = Stub::new("sound", Channel::Slack, &says, &calls);
    let app = App::with_accounts(&[], vec![stub.on(Terms::default())]).await;
    app.post_many(100).await;
    app.work().await;
    assert_eq!((calls.count(), app.provider("sound").await["status"].clone()), (100, json!("UP")));
    app.done().await;
}
