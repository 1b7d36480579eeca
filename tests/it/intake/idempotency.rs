//! Idempotency keys: the same request under the same key is one message.

use std::collections::BTreeSet;
use std::sync::Arc;

use notihub::flow::intake::accept::accept_all;
use notihub::flow::relay;
use notihub::hub::Parts;
use notihub::limits;
use notihub::model::access::role::StaffRole;
use notihub::model::channel::Channel;
use notihub::model::idempotency::Accepted;
use notihub::model::intake;
use notihub::provider::mock::Mock;
use notihub::provider::{Account, Provider, Providers};
use notihub::shutdown::Shutdown;
use notihub::{api, http};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::intake::{JSON, changed, good};
use crate::support::app::{Answer, App, MASTER_KEY, email, emails, settings};
use crate::support::database::store;

/// S0-15: the same request under the same key is the same message, in whatever order its fields come; another one under
/// that key is refused, and what was refused leaves its key free.
#[tokio::test]
async fn key_repeated_is_one_message() {
    let app = App::new().await;
    let mut body = changed(good(), "/clientMsgId", json!("order-1"));
    app.post("/v1/messages", changed(body.clone(), "/priority", json!("SOON"))).await.refused(422, "enum");
    let first = app.post("/v1/messages", body.clone()).await.expect(202);
    assert_eq!(first.header("idempotent-replayed"), "");
    app.work().await;
    app.advance(30);

    let reordered = r#"{"channels": [{"to": ["kim@example.com"], "channel": "EMAIL"}], "body": "It works.",
        "priority": null, "title": "Hell\u006f", "clientMsgId": "order-1", "type": "TEST", "metadata": {}}"#;
    for again in [body.to_string().into_bytes(), reordered.as_bytes().to_vec()] {
        let again = app.post_raw("/v1/messages", &[JSON], again).await.expect(200);
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.body, first.body, "the first answer again");
        assert_eq!(again.header("location"), first.header("location"));
    }
    for (path, value) in [
        ("/title", json!("Other")),
        ("/type", json!("OTHER")),
        ("/priority", json!("BULK")),
        ("/channels/0/to", json!("lee@example.com")),
        ("/channels/0/html", json!("<p>")),
        ("/metadata", json!({"a": 1})),
        ("/scheduledAt", json!("2027-03-06T00:00:00Z")),
        ("/expiresAt", json!("2027-03-06T00:00:00Z")),
    ] {
        let other = app.post("/v1/messages", changed(body.clone(), path, value)).await;
        assert_eq!(other.refused(409, "idempotency_key_reused").body["code"], "E004", "{path}");
    }
    assert_eq!(app.count("select count(*) from messages").await, 1);
    assert_eq!(app.smtp.records().len(), 1);

    body = changed(body, "/clientMsgId", json!("order-2"));
    let second = app.post("/v1/messages", body).await.expect(202);
    assert_ne!(second.id(), first.id(), "another key is another message, however alike");
    app.post("/v1/messages", good()).await.expect(202);
    app.post("/v1/messages", good()).await.expect(202);
    assert_eq!(app.count("select count(*) from messages").await, 4, "without a key each is its own");
    app.done().await;
}

/// S0-15: the header `Idempotency-Key` and the field `clientMsgId` are one key, at every door.
#[tokio::test]
async fn key_in_header_and_field_is_one_key() {
    let app = App::new().await;
    let headers = [JSON, ("Idempotency-Key", "k-1")];
    let text = || good().to_string().into_bytes();
    let first = app.post_raw("/v1/messages", &headers, text()).await.expect(202);
    assert_eq!(first.body["clientMsgId"], "k-1");
    let with_field = changed(good(), "/clientMsgId", json!("k-1"));
    assert_eq!(app.post("/v1/messages", with_field.clone()).await.expect(200).id(), first.id());
    assert_eq!(
        app.post_raw("/v1/messages", &headers, with_field.to_string().into_bytes()).await.expect(200).id(),
        first.id()
    );
    let batched = app.post("/v1/messages/batch", json!({"messages": [with_field]})).await.expect(200);
    assert_eq!(
        (&batched.body["messages"][0]["messageId"], &batched.body["messages"][0]["replayed"]),
        (&json!(first.id()), &json!(true))
    );
    let short = json!({"type": "TEST", "title": "Hello", "message": "It works.", "recipient": "kim@example.com",
        "channels": ["EMAIL"]});
    let same = app.post_raw("/notifications", &headers, short.to_string().into_bytes()).await.expect(200);
    assert_eq!(same.id(), first.id(), "the same message in seed 003's words");
    assert_eq!(same.header("idempotent-replayed"), "true");
    let other = changed(short, "/message", json!("Another."));
    app.post_raw("/notifications", &headers, other.to_string().into_bytes())
        .await
        .refused(409, "idempotency_key_reused");
    assert_eq!(app.count("select count(*) from messages").await, 1);
    app.done().await;
}

/// S0-15, S0-79: duplicates that arrive at the same moment make one message; one answer says that it is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn key_repeated_at_the_same_moment_is_one_message() {
    let app = App::new().await;
    for round in 0..5 {
        let body = changed(good(), "/clientMsgId", json!(format!("key-{round}")));
        let other = changed(body.clone(), "/title", json!("Other"));
        // Every fourth is a different request under the same key.
        let answers = (0..32).map(|n| app.post("/v1/messages", if n % 4 == 3 { other.clone() } else { body.clone() }));
        let answers = futures_util::future::join_all(answers).await;
        let shown = |status: u16| answers.iter().filter(|a| a.status == status).count();
        assert_eq!((shown(202), shown(202) + shown(200) + shown(409)), (1, 32), "round {round}");
        assert!(matches!((shown(200), shown(409)), (23, 8) | (7, 24)), "round {round}: {} {}", shown(200), shown(409));
        let ids: BTreeSet<String> = answers.iter().filter(|a| a.status != 409).map(|a| a.id()).collect();
        assert_eq!(ids.len(), 1, "round {round}");
    }
    assert_eq!(app.count("select count(*) from messages").await, 5);
    assert_eq!(app.count("select count(*) from deliveries").await, 5);
    app.done().await;
}

/// A batch is written whole or not at all: also when only a key stands against it.
#[tokio::test]
async fn batch_with_a_taken_key_is_refused_whole() {
    let app = App::new().await;
    let keyed = |n: usize, to: &str| changed(email(to), "/clientMsgId", json!(format!("b-{n}")));
    let first = app.post("/v1/messages", keyed(2, "kim@example.com")).await.expect(202).id();

    let clash: Vec<Value> = (0..5).map(|n| keyed(n, "lee@example.com")).collect();
    let answer =
        app.post("/v1/messages/batch", json!({"messages": clash})).await.refused(409, "idempotency_key_reused");
    assert_eq!(
        (&answer.body["code"], &answer.body["errors"][0]["pointer"]),
        (&json!("E004"), &json!("/messages/2/clientMsgId"))
    );
    assert_eq!(app.count("select count(*) from messages").await, 1);
    assert_eq!(app.count("select count(*) from idempotency").await, 1, "the other keys are free again");

    let mixed: Vec<Value> = (0..5).map(|n| keyed(n, "kim@example.com")).collect();
    let answer = app.post("/v1/messages/batch", json!({"messages": mixed})).await.expect(202);
    let items = answer.body["messages"].as_array().unwrap().clone();
    let replayed: Vec<bool> = items.iter().map(|m| m["replayed"].as_bool().unwrap()).collect();
    assert_eq!(replayed, [false, false, true, false, false]);
    assert_eq!(items[2]["messageId"], first);
    let again = app.post("/v1/messages/batch", json!({"messages": mixed})).await.expect(200);
    let ids = |list: &[Value]| list.iter().map(|m| m["messageId"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(again.body["messages"].as_array().unwrap()), ids(&items));
    assert_eq!(app.count("select count(*) from messages").await, 5);

    let full: Vec<Value> = (0..1000).map(|n| keyed(1000 + n, "kim@example.com")).collect();
    app.post("/v1/messages/batch", json!({"messages": full})).await.expect(202);
    assert_eq!(app.count("select count(*) from deliveries").await, 1005);
    app.done().await;
}

/// A message for later, with a key, that expires.
fn timed(key: &str) -> Value {
    let mut body = email("kim@example.com");
    body["clientMsgId"] = json!(key);
    body["scheduledAt"] = json!("2027-03-05T01:00:00Z");
    body["expiresAt"] = json!("2027-03-05T02:00:00Z");
    body
}

#[track_caller]
fn replayed(again: Answer, first: &Answer) {
    let again = again.expect(200);
    assert_eq!((again.id(), again.header("idempotent-replayed")), (first.id(), "true"));
    assert_eq!(again.body, first.body);
}

/// Makes other rights of the test's partner.
async fn change(app: &App, change: Value) {
    let admin = app.staff(StaffRole::Admin).await;
    let path = format!("/v1/partners/{}", app.partner.partner_id);
    app.ask(&admin, "PATCH", &path, Some(change)).await.expect(200);
}

/// E6: after `scheduledAt` and `expiresAt` the same message is answered as the first time, over every way in; another
/// message under its key is a conflict, and what was never posted is refused for its times.
#[tokio::test]
async fn message_repeated_after_its_times_is_answered_as_at_first() {
    let app = App::new().await;
    let first = app.post("/v1/messages", timed("a")).await.expect(202);
    let mut short =
        json!({"type": "A", "title": "t", "message": "m", "recipient": "kim@example.com", "channels": ["EMAIL"]});
    short["expiresAt"] = json!("2027-03-05T02:00:00Z");
    let key = [("content-type", "application/json"), ("idempotency-key", "b")];
    let bytes = short.to_string().into_bytes();
    let noted = app.post_raw("/notifications", &key, bytes.clone()).await.expect(202);

    app.advance(6 * 3600);

    replayed(app.post("/v1/messages", timed("a")).await, &first);
    replayed(app.post_raw("/notifications", &key, bytes.clone()).await, &noted);
    let json = [key[0]];
    app.post_raw("/notifications", &json, bytes).await.refused(422, "time_range");
    app.post("/v1/messages", timed("never")).await.refused(422, "time_range");
    app.post("/v1/messages?dryRun=true", timed("a")).await.refused(422, "time_range");
    let mut other = timed("a");
    other["body"] = json!("other");
    app.post("/v1/messages", other).await.refused(409, "idempotency_key_reused");
    let mut wrong = timed("a");
    wrong["channels"][0]["to"] = json!("nobody");
    let wrong = app.post("/v1/messages", wrong).await.refused(422, "time_range");
    assert_eq!(wrong.body["errors"].as_array().map(Vec::len), Some(3), "{}", wrong.text);
    assert_eq!(app.hub.metrics.accepted.with_label_values(&["replayed"]).get(), 2);
    app.work().await;
    app.done().await;
}

/// E6: in a batch each message is looked at by itself: a stored one is answered, a new one is stored, and one that is
/// new and late refuses them all.
#[tokio::test]
async fn batch_repeated_after_its_times_is_answered_as_at_first() {
    let app = App::new().await;
    let batch = |messages: &[Value]| json!({"messages": messages});
    let first = app.post("/v1/messages/batch", batch(&[timed("a"), timed("b")])).await.expect(202);
    let ids = |answer: &Answer| -> Vec<(String, bool)> {
        let shown = answer.body["messages"].as_array().unwrap().iter();
        shown.map(|m| (m["messageId"].as_str().unwrap().to_owned(), m["replayed"].as_bool().unwrap())).collect()
    };
    app.advance(6 * 3600);

    let again = app.post("/v1/messages/batch", batch(&[timed("a"), timed("b")])).await.expect(200);
    let stored = ids(&first);
    assert_eq!(ids(&again), [(stored[0].0.clone(), true), (stored[1].0.clone(), true)]);

    let late = app.post("/v1/messages/batch", batch(&[timed("a"), timed("c"), email("lee@example.com")])).await;
    let late = late.refused(422, "time_range");
    assert_eq!(late.body["errors"][0]["pointer"], "/messages/1/scheduledAt", "{}", late.text);
    assert_eq!(late.body["errors"].as_array().map(Vec::len), Some(2), "{}", late.text);
    let mut other = timed("b");
    other["body"] = json!("other");
    let clash = app.post("/v1/messages/batch", batch(&[timed("a"), other])).await;
    let clash = clash.refused(409, "idempotency_key_reused");
    assert_eq!(clash.body["errors"][0]["pointer"], "/messages/1/clientMsgId");
    assert_eq!(app.count("select count(*) from messages").await, 2, "all or none");

    let mixed = batch(&[email("lee@example.com"), timed("b"), email("choi@example.com"), timed("a")]);
    let mixed = app.post("/v1/messages/batch", mixed).await.expect(202);
    let shown: Vec<&Value> =
        mixed.body["messages"].as_array().unwrap().iter().map(|m| &m["deliveries"][0]["to"]).collect();
    assert_eq!(shown, ["lee@example.com", "kim@example.com", "choi@example.com", "kim@example.com"]);
    let mixed = ids(&mixed);
    assert_eq!(
        (mixed[0].1, &mixed[1], mixed[2].1, &mixed[3]),
        (false, &(stored[1].0.clone(), true), false, &(stored[0].0.clone(), true))
    );
    app.work().await;
    app.done().await;
}

/// E6: rights that the partner lost, and a limit that became smaller, change no answer that was given.
#[tokio::test]
async fn message_repeated_without_the_rights_is_answered_as_at_first() {
    let app = App::new().await;
    let first = app.post("/v1/messages", timed("a")).await.expect(202);
    let batch = json!({"messages": [timed("b"), timed("c"), timed("d")]});
    app.post("/v1/messages/batch", batch.clone()).await.expect(202);
    change(&app, json!({"channels": ["SLACK"], "capabilities": ["cancel"], "rateLimitTps": 2})).await;
    app.advance(2);

    app.post("/v1/messages", timed("new")).await.refused(422, "not_allowed");
    app.post("/v1/messages", email("kim@example.com")).await.refused(400, "channel_not_allowed");
    app.advance(2);
    replayed(app.post("/v1/messages", timed("a")).await, &first);
    app.post("/v1/messages/batch", batch).await.expect(200);
    let new = json!({"messages": [timed("b"), timed("c"), timed("e")]});
    app.advance(2);
    app.post("/v1/messages/batch", new).await.refused(422, "batch_size");
    app.done().await;
}

/// E6: a request enqueued in SQL a second time, after the partner lost the channel, is no refusal either.
#[tokio::test]
async fn request_in_sql_repeated_without_the_rights_is_done() {
    let app = App::new().await;
    let mut orders = sqlx::PgConnection::connect(&app.url).await.unwrap();
    let relay_all = async || {
        let mut relay = relay::Relay::default();
        while relay::relay(&app.hub, &mut relay).await.unwrap() {}
    };
    let mut enqueue = async |body: Value| {
        let sql = "select notihub.enqueue('test', $1::jsonb)";
        sqlx::query(sql).bind(body.to_string()).execute(&mut orders).await.unwrap();
    };
    enqueue(timed("a")).await;
    relay_all().await;
    change(&app, json!({"channels": ["SLACK"]})).await;
    enqueue(timed("a")).await;
    relay_all().await;
    let refused = app.get("/v1/intake/refused").await.expect(200).body;
    assert_eq!(refused["items"], json!([]));
    enqueue(timed("b")).await;
    relay_all().await;
    let refused = app.get("/v1/intake/refused").await.expect(200).body;
    assert_eq!(refused["items"][0]["reason"], "channel_not_allowed");
    assert_eq!(app.count("select count(*) from messages").await, 1);
    assert_eq!(app.count("select count(*) from notihub.requests").await, 0);
    app.done().await;
}

/// E6: a process that serves the channel and the Slack destination no longer answers what was stored when they were.
#[tokio::test]
async fn message_repeated_after_its_channel_is_gone_is_answered_as_at_first() {
    let app = App::with(&["--mock=SMS"]).await;
    let mut body = json!({"type": "A", "body": "text", "clientMsgId": "a", "channels": [
        {"channel": "SMS", "to": "010-1234-5678"}, {"channel": "SLACK", "to": "dev"}]});
    let first = app.post("/v1/messages", body.clone()).await.expect(202);
    app.work().await;
    let less = notihub::flow::start(Parts {
        settings: settings(&["--accept-loss", "--mock=SLACK"]),
        store: store(&app.url),
        providers: Providers::new([Account::from(Arc::new(Mock::new(vec![Channel::Slack])) as Arc<dyn Provider>)])
            .unwrap(),
        clock: app.hub.clock.clone(),
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/messages", listener.local_addr().unwrap());
    http::server::start(listener, api::router(&less), &less.shutdown);
    let token = app.fresh_token().await;
    let post = async |body: &Value| {
        let request = reqwest::Client::new().post(&url).bearer_auth(&token).header("content-type", "application/json");
        Answer::read(request.body(body.to_string())).await
    };
    replayed(post(&body).await, &first);
    body["clientMsgId"] = json!("b");
    let new = post(&body).await.refused(400, "channel_unavailable");
    let reasons: Vec<&Value> = new.body["errors"].as_array().unwrap().iter().map(|e| &e["reason"]).collect();
    assert_eq!(reasons, ["channel_unavailable", "destination_unknown"]);
    less.shutdown.stop();
    assert!(less.shutdown.drained(std::time::Duration::from_secs(20)).await);
    less.store.close().await;
    app.done().await;
}

/// S0-15: two processes get the same keys at the same moment, in batches of several statements and in opposite orders.
/// None waits for the other in a ring: both are answered, and each key is one message.
#[tokio::test]
async fn key_in_two_batches_of_opposite_orders_is_one_message() {
    const MESSAGES: usize = 3 * limits::BATCH_SLICE;
    let app = App::new().await;
    let partner = app.partner.clone();
    for round in 0..5 {
        let batch = |reversed: bool| {
            let mut messages = emails(MESSAGES);
            for (n, message) in messages.iter_mut().enumerate() {
                message["clientMsgId"] = json!(format!("{round}-{n}"));
            }
            if reversed {
                messages.reverse();
            }
            let body = serde_json::to_vec(&json!({"messages": messages})).unwrap();
            intake::batch(&body, &app.hub.intake_policy(&partner)).unwrap()
        };
        let (one, other) =
            tokio::join!(accept_all(&app.hub, &partner, batch(false)), accept_all(&app.hub, &partner, batch(true)),);
        let ids = |accepted: Vec<Accepted>| accepted.into_iter().map(|a| a.message_id).collect::<Vec<_>>();
        let (one, mut other) = (ids(one.unwrap()), ids(other.unwrap()));
        other.reverse();
        assert_eq!(one, other, "round {round}");
    }
    assert_eq!(app.count("select count(*) from messages").await, 5 * MESSAGES as i64);
    app.settle_all().await;
    app.done().await;
}
