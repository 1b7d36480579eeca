//! Cancel: before the call it ends the delivery, during the call it is a request, and a doubt stays a doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use notihub::flow::delivery::settle::settle;
use notihub::id::Tsid;
use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::provider::simulator::Behaviour;
use notihub::provider::{BoxFuture, Provider, SendRequest};
use notihub::store;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use crate::delivery::story;
use crate::support::app::{App, call_one, email, slack_post, slack_posts};
use crate::support::hubs::{asks, lose, take, take_one};
use crate::support::message::{delivery, post};
use crate::support::wait::until;

/// A claim that comes between a cancel's look and its write wins; the cancel is noted, and what was taken is SENT.
#[tokio::test]
async fn cancel_overtaken_by_a_claim_is_noted() {
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

    // Its worker is lost before it reported whether it called. The message is canceled, so no attempt follows.
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await.0, "UNDETERMINED");
    app.done().await;
}

/// Cancels and workers at the same time, many times over: each message was sent or canceled, never both.
#[tokio::test]
async fn cancel_beside_workers_ends_sent_or_canceled_never_both() {
    let app = App::new().await;
    let ids = app.accept_all(slack_posts(120)).await;
    // So that both happen, however busy the machine is.
    for held in take(&app.hub, 1).await {
        let outcome = call_one(&app.hub, held).await;
        settle(&app.hub, &[outcome]).await.unwrap();
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
                settle(&app.hub, &[outcome]).await.unwrap();
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

/// A cancel that is noted during a call ends the delivery as soon as the provider refuses.
#[tokio::test]
async fn cancel_during_a_call_ends_canceled_unless_accepted() {
    let app = App::new().await;
    for (then, ends) in [(Behaviour::Ok, "SENT"), (Behaviour::Limit { retry_after: 60 }, "CANCELED")] {
        app.slack.script(then, 1);
        let id = app.accept(slack_post("x")).await;
        let held = take_one(&app.hub).await;
        app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200);
        let outcome = call_one(&app.hub, held).await;
        settle(&app.hub, &[outcome]).await.unwrap();
        assert_eq!(app.stands(&id).await.0, ends, "at once: it does not wait for a retry that nobody wants");
    }
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// Canceled before it was sent: nothing is sent, sent deliveries stay as they are, and a second cancel changes nothing.
#[tokio::test]
async fn cancel_pending_delivery_ends_canceled() {
    let app = App::new().await;
    let cancel = async |id: &str| app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200).body;
    let mut scheduled = email("kim@example.com");
    scheduled["scheduledAt"] = json!("2027-03-06T00:00:00Z");
    for body in [email("kim@example.com"), scheduled] {
        let id = post(&app, body).await;
        let shown = cancel(&id).await;
        assert_eq!(
            (&shown["canceled"], &shown["cancelRequested"], &shown["messageId"]),
            (&json!(1), &json!(0), &json!(id))
        );
        assert_eq!(
            (&shown["deliveries"][0]["status"], &shown["deliveries"][0]["reason"]),
            (&json!("CANCELED"), &json!("canceled"))
        );
        assert_eq!(app.message(&id).await["status"], "CANCELED");
        assert_eq!(cancel(&id).await, shown);
        assert_eq!(story(&app, &id).await.last().unwrap().0, "event");
    }
    app.advance(2 * 86_400);
    assert_eq!(app.work().await, 0);

    let both = json!({"type": "A", "title": "t", "body": "b", "channels": [
        {"channel": "EMAIL", "to": "kim@example.com"}, {"channel": "EMAIL", "to": "full@example.com"}]});
    let id = post(&app, both).await;
    app.work().await;
    let shown = cancel(&id).await;
    let statuses: Vec<&Value> = shown["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(
        (statuses, &shown["canceled"]),
        (vec![&json!("SENT"), &json!("CANCELED")], &json!(1)),
        "a retry that waited is off"
    );
    app.settle_all().await;
    assert_eq!(app.message(&id).await["status"], "PARTIAL");
    assert_eq!(app.smtp.records().len(), 1);

    for unknown in ["0000000000000", "x"] {
        app.post(&format!("/v1/messages/{unknown}/cancel"), json!({})).await.refused(404, "not_found");
    }
    app.done().await;
}

/// Canceled while a retry waits after an attempt that may have been taken: no retry, but it is not called CANCELED.
#[tokio::test]
async fn cancel_after_an_unknown_outcome_ends_undetermined() {
    let app = App::new().await;
    app.slack.script(Behaviour::Cut, 1);
    let id = post(&app, slack_post("x")).await;
    app.work().await;
    let shown = app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200).body;
    assert_eq!((&shown["canceled"], &shown["deliveries"][0]["status"]), (&json!(0), &json!("UNDETERMINED")));
    assert_eq!(shown["deliveries"][0]["reason"], "canceled");
    app.advance(3600);
    assert_eq!(app.work().await, 0);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// Answers call by call as scripted, and can be watched while it does.
struct Scripted {
    channel: Channel,
    says: Mutex<Vec<Says>>,
    entered: Semaphore,
    open: Semaphore,
}

#[derive(Clone, Copy, PartialEq)]
enum Says {
    Yes,
    NotNow,
    Panic,
}

impl Scripted {
    /// The last of these first.
    fn new(channel: Channel, says: &[Says]) -> Arc<Scripted> {
        let (entered, open) = (Semaphore::new(0), Semaphore::new(0));
        Arc::new(Scripted { channel, says: Mutex::new(says.to_vec()), entered, open })
    }
}

impl Provider for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(self.channel)]
    }

    fn send<'a>(&'a self, _letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let says = self.says.lock().await.pop().unwrap_or(Says::Yes);
            assert!(says != Says::Panic, "the adapter fails, as scripted");
            self.entered.add_permits(1);
            self.open.acquire().await.unwrap().forget();
            let detail = String::new();
            match says {
                Says::Yes => Outcome::Accepted { provider_ref: Some("ref".into()) },
                _ => Outcome::Rejected {
                    class: ErrorClass::ProviderInternal,
                    code: "not_now".into(),
                    detail,
                    retry_after: None,
                },
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("scripted".to_owned()) })
    }
}

fn to_ops() -> Value {
    json!({"type": "A", "body": "b", "channels": [{"channel": "SLACK", "to": "ops"}]})
}

/// Canceled during the call: the request is noted; an accepted delivery is SENT all the same, and a refused one is not
/// tried again.
#[tokio::test]
async fn cancel_while_sending_is_honoured_after_a_refusal() {
    for (says, ending) in [(Says::Yes, "SENT"), (Says::NotNow, "CANCELED")] {
        let provider = Scripted::new(Channel::Slack, &[says]);
        let app = App::with_provider(&[], provider.clone()).await;
        let id = post(&app, to_ops()).await;
        let during = async {
            provider.entered.acquire().await.unwrap().forget();
            let shown = app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200).body;
            assert_eq!((&shown["canceled"], &shown["cancelRequested"]), (&json!(0), &json!(1)));
            assert_eq!(
                (&shown["deliveries"][0]["status"], &shown["deliveries"][0]["cancelRequested"]),
                (&json!("PROCESSING"), &json!(true))
            );
            provider.open.add_permits(1);
        };
        tokio::join!(app.work(), during);
        app.settle_all().await;
        assert_eq!(delivery(&app, &id).await["status"], ending);
        assert_eq!(provider.entered.available_permits(), 0, "nobody was asked a second time");
        app.done().await;
    }
}
