//! Endpoints that want the events of a message in order: what they wait for is found at the same cost whatever they got
//! before, and neither they nor any other endpoint hold up a channel.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notihub::hub::Hub;
use notihub::model::delivery::{READY_WHEN_PREDECESSOR_ENDS, READY_WHEN_RESUMED};
use notihub::worker;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::app::{App, email, slack_post};
use crate::support::hubs::{another, stop};
use crate::support::receiver::{Answer, Receiver, Recorded};
use crate::support::wait::until;
use crate::webhook::{HERE, endpoint, events, here, ids};

/// A hub that sends webhooks to this machine, and an endpoint there that wants order; its id.
async fn ordered() -> (App, Receiver, String) {
    let (app, receiver) = (App::with(&HERE).await, Receiver::start().await);
    let body = json!({"url": receiver.url, "ordered": true});
    let made = app.post("/v1/webhooks", body).await.expect(201).body;
    let id = made["endpointId"].as_str().unwrap().to_owned();
    (app, receiver, id)
}

/// The ids of events as they arrived, by the message that they tell of.
fn by_message(records: &[Recorded]) -> BTreeMap<String, Vec<String>> {
    let mut by_message: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records {
        let id = record.header("webhook-id");
        by_message.entry(id.split('-').next().unwrap().to_owned()).or_default().push(id.to_owned());
    }
    by_message
}

fn in_order(message: &str) -> Vec<String> {
    ["0-1", "1-1", "0-2"].map(|event| format!("{message}-{event}")).to_vec()
}

async fn most_not_called(app: &App) -> i64 {
    app.count(
        "select coalesce(max(n), 0) from (select count(*) as n from attempt_history a join deliveries d using (shard, \
            message_id, no) \
         where d.lane >= 66 and a.outcome = 'NOT_CALLED' group by shard, message_id, no) as each",
    )
    .await
}

/// Fault A2: four hundred messages to an endpoint that wants order and does not answer. What they are about goes out
/// over its own channels meanwhile; the endpoint's events wait without being claimed again and again, and arrive in
/// order.
#[tokio::test]
async fn ordered_endpoint_that_does_not_answer_holds_up_no_channel() {
    let (app, tarpit, _) = ordered().await;
    let gate = CancellationToken::new();
    tarpit.law({
        let gate = gate.clone();
        move |_, _| Answer::status(200).behind(&gate)
    });
    let messages = |n: usize| (0..n).map(|n| if n % 2 == 0 { email("kim@example.com") } else { slack_post("hello") });
    let messages: Vec<Value> = messages(400).collect();
    app.post("/v1/messages/batch", json!({"messages": messages})).await.expect(202);
    let hub = app.hub.clone();
    let working = app.hub.shutdown.spawn(async move { worker::deliver::deliver_due(&hub).await });
    until("all are with their recipients", async || {
        app.smtp.records().len() == 200 && app.slack.records().len() == 200
    })
    .await;
    tarpit.arrived(1).await;
    assert!(!gate.is_cancelled(), "the endpoint has answered nothing yet");
    gate.cancel();
    working.await.unwrap().unwrap();
    app.settle_all().await;
    let answer = by_message(&tarpit.records());
    assert_eq!(answer.len(), 400);
    for (message, mut got) in answer {
        // What was not answered within the call budget came again.
        got.dedup();
        assert_eq!(got, in_order(&message));
    }
    let most = most_not_called(&app).await;
    assert!(most <= 5, "a webhook was claimed {most} times in vain");
    app.done().await;
}

/// Fault A2, I16: every event is refused when it first comes, and two workers share the work. No event of a message
/// comes before the one ahead of it was taken; while that waits for its next try, those behind it are not claimed.
#[tokio::test]
async fn ordered_events_refused_at_first_arrive_in_order_from_two_workers() {
    let (app, receiver, id) = ordered().await;
    let refused = Mutex::new(HashSet::new());
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    receiver.law({
        let taken = taken.clone();
        move |_, record| {
            let id = record.header("webhook-id").to_owned();
            if refused.lock().unwrap().insert(id.clone()) {
                return Answer::status(500);
            }
            taken.lock().unwrap().push(id);
            Answer::status(200)
        }
    });
    let messages: Vec<Value> = (0..100).map(|n| email(&format!("p{n}@example.com"))).collect();
    app.post("/v1/messages/batch", json!({"messages": messages})).await.expect(202);
    let other = another(&app).await;
    let open = "select count(*) from deliveries where settled_at is null";
    let pass = |hub: Hub| async move { worker::deliver::deliver_due(&hub).await.unwrap() };
    let mut passes = 0;
    while app.count(open).await > 0 {
        tokio::join!(pass(app.hub.clone()), pass(other.clone()));
        app.advance(2);
        passes += 1;
        assert!(passes < 100, "still open: {}", app.count(open).await);
    }
    for (message, got) in by_message(&receiver.records()) {
        let twice: Vec<String> = in_order(&message).into_iter().flat_map(|e| [e.clone(), e]).collect();
        assert_eq!(got, twice, "each comes, comes again, and only then the next");
    }
    assert_eq!(taken.lock().unwrap().len(), 300);
    let most = most_not_called(&app).await;
    assert!(most <= 3, "a webhook was claimed {most} times in vain");
    let shown = app.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200).body;
    assert_eq!(shown["items"][0]["status"], "SENT");
    stop(other).await;
    app.done().await;
}

/// Fault A2: webhooks and the other channels have connections of their own: neither waits while the other has none.
#[tokio::test]
async fn webhooks_and_channels_do_not_share_connections() {
    let (app, receiver, _) = ordered().await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(app.hub.store.webhooks().acquire().await.unwrap());
    }
    worker::deliver::start(&app.hub, app.hub.next_id());
    until("a mail goes while webhooks have no connection", async || app.smtp.records().len() == 1).await;
    assert!(receiver.records().is_empty());
    held.clear();
    assert_eq!(receiver.arrived(2).await.len(), 2);
    for _ in 0..6 {
        held.push(app.hub.store.engine().acquire().await.unwrap());
    }
    app.post("/v1/messages", email("lee@example.com")).await.expect(202);
    receiver.arrived(3).await;
    assert_eq!(app.smtp.records().len(), 1, "a webhook goes while mails have no connection");
    held.clear();
    until("the mail goes, too", async || app.smtp.records().len() == 2).await;
    receiver.arrived(4).await;
    app.hub.shutdown.stop();
    assert!(app.hub.shutdown.drained(Duration::from_secs(20)).await);
    app.done().await;
}

/// Fault A2: a worker that is lost after the end of an event, before the release of the next, costs a while, not the
/// event.
#[tokio::test]
async fn ordered_event_whose_release_was_lost_is_released_later() {
    let (app, receiver, _) = ordered().await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    sqlx::query("update deliveries set status = 'SCHEDULED', ready_at = $1 where lane >= 66")
        .bind(READY_WHEN_PREDECESSOR_ENDS)
        .execute(&app.db().await)
        .await
        .unwrap();
    app.settle_all().await;
    let answer = by_message(&receiver.records());
    assert!(answer.iter().all(|(message, got)| *got == in_order(message)) && answer.len() == 1, "{answer:?}");
    app.done().await;
}

/// Fault A2: webhooks that an older program wrote, including webhooks that wait for another try, go in order like all
/// others.
#[tokio::test]
async fn ordered_events_of_an_older_program_arrive_in_order() {
    let (app, receiver, _) = ordered().await;
    receiver.queue((0..20).map(|_| Answer::status(500)));
    let messages: Vec<Value> = (0..20).map(|n| email(&format!("p{n}@example.com"))).collect();
    app.post("/v1/messages/batch", json!({"messages": messages})).await.expect(202);
    app.work().await;
    assert_eq!(app.count("select count(*) from deliveries where lane >= 66 and settled_at is null").await, 60);
    sqlx::query("update deliveries set about = null, told_at = null").execute(&app.db().await).await.unwrap();
    app.settle_all().await;
    for (message, mut got) in by_message(&receiver.records()) {
        got.dedup();
        assert_eq!(got, in_order(&message));
    }
    assert_eq!(app.count("select count(*) from deliveries where lane >= 66 and about is null").await, 0);
    app.done().await;
}

/// Fault A2: an endpoint that gives up its order gets at once what waited behind an event that it refused.
#[tokio::test]
async fn ordered_endpoint_that_gives_up_order_gets_what_waits() {
    let (app, receiver, id) = ordered().await;
    receiver.queue([Answer::status(500)]);
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    assert_eq!(receiver.records().len(), 1, "the others wait behind the first");
    let token = app.fresh_token().await;
    app.ask(&token, "PATCH", &format!("/v1/webhooks/{id}"), Some(json!({"ordered": false}))).await.expect(200);
    app.work().await;
    assert_eq!(receiver.records().len(), 3, "they do not wait any more");
    app.settle_all().await;
    app.done().await;
}

/// Where the endpoint asks for order, an event of a message is not sent before the one ahead of it is through; other
/// messages do not wait for it.
#[tokio::test]
async fn ordered_event_waits_for_the_one_before() {
    let (app, receiver) = here().await;
    let (id, _) = endpoint(&app, &receiver, json!({"ordered": true})).await;
    let first = app.post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    let stuck = format!("{first}-0-1");
    receiver.law({
        let stuck = stuck.clone();
        move |n, r| Answer::status(if r.header("webhook-id") == stuck && n < 4 { 500 } else { 200 })
    });
    app.work().await;
    let second = app.post("/v1/messages", email("lee@example.com")).await.expect(202).id();
    app.work().await;
    let of = |id: &str| -> Vec<String> { ids(&receiver.records()).into_iter().filter(|e| e.starts_with(id)).collect() };
    assert_eq!(of(&first), std::slice::from_ref(&stuck), "the others of this message wait");
    assert_eq!(of(&second)[0], format!("{second}-0-1"));
    app.settle_all().await;
    let in_order = |id: &str| [format!("{id}-0-1"), format!("{id}-1-1"), format!("{id}-0-2")];
    let mut got = of(&first);
    got.dedup();
    assert_eq!(got, in_order(&first));
    assert_eq!(of(&second), in_order(&second));
    assert!(app.statuses(&id).await.iter().all(|s| s == "SENT"));
    app.done().await;
}

/// A worker that read the endpoint while it was paused parks an event after it was resumed: those behind it come in
/// time all the same.
#[tokio::test]
async fn ordered_event_does_not_wait_for_a_parked_one() {
    let (app, receiver) = here().await;
    let (id, _) = endpoint(&app, &receiver, json!({"ordered": true})).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    sqlx::query("update deliveries set status = 'SCHEDULED', ready_at = $1 where lane >= 66")
        .bind(READY_WHEN_RESUMED)
        .execute(&app.db().await)
        .await
        .unwrap();
    app.work().await;
    assert!(receiver.records().is_empty(), "the others wait for the first");
    let token = app.fresh_token().await;
    for status in ["PAUSED", "ACTIVE"] {
        app.ask(&token, "PATCH", &format!("/v1/webhooks/{id}"), Some(json!({"status": status}))).await.expect(200);
    }
    app.settle_all().await;
    assert_eq!(events(&receiver.records()), ["message.accepted", "delivery.sent", "message.completed"]);
    app.done().await;
}

/// A message to many, told in order, goes one after the other, and not one in each pass.
#[tokio::test]
async fn ordered_events_of_one_message_go_within_a_pass() {
    let (app, receiver) = here().await;
    let (id, _) = endpoint(&app, &receiver, json!({"ordered": true, "events": ["delivery.sent"]})).await;
    let to: Vec<String> = (0..60).map(|n| format!("p{n}@example.com")).collect();
    let body = json!({"type": "TEST", "title": "t", "body": "b", "channels": [{"channel": "EMAIL", "to": to}]});
    app.post("/v1/messages", body).await.expect(202);
    app.work().await;
    app.settle_all().await;
    assert_eq!((receiver.records().len(), receiver.most_open()), (60, 1));
    let turns = "select count(*) from attempt_history where code = 'waits_for_its_turn'";
    assert!(app.count(turns).await < 60, "{} waited in vain", app.count(turns).await);
    let written = "select message_id || '-' || no from deliveries where lane >= 66 order by told_at";
    let written: Vec<String> = sqlx::query_scalar(written).fetch_all(&app.db().await).await.unwrap();
    let id_of = |d: &Value| {
        let (message, no) = notihub::model::delivery::parse_public_id(d["deliveryId"].as_str().unwrap()).unwrap();
        format!("{}-{no}", message.0)
    };
    let shown: BTreeMap<String, String> =
        app.webhooks(&id).await.iter().map(|d| (id_of(d), d["eventId"].to_string())).collect();
    let answer: Vec<String> = written.iter().map(|webhook| shown[webhook].clone()).collect();
    let got: Vec<String> = ids(&receiver.records()).iter().map(|e| format!("\"{e}\"")).collect();
    assert_eq!(got, answer, "in the order in which they were written");
    app.done().await;
}
