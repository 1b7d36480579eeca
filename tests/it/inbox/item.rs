//! Items: they arrive once, are listed and counted, and are changed by their user alone.

use futures_util::future::join_all;
use notihub::flow::delivery::call::call;
use notihub::flow::delivery::settle::settle;
use notihub::flow::inbox::wake_snoozed;
use notihub::store;
use serde_json::json;

use crate::inbox::to_inbox;
use crate::support::app::App;
use crate::support::hubs::{another, lose, stop, take, take_one};

/// A message over INAPP is in the inboxes of its users, is DELIVERED with its event, and carries what was posted;
/// without `to` it goes to the ids of the recipients. A second run of the worker changes nothing.
#[tokio::test]
async fn inapp_message_is_in_the_inbox_and_delivered() {
    let app = App::new().await;
    let entry = json!({"channel": "INAPP", "subject": "Paid", "body": "Thank you.", "category": "orders",
        "actionUrl": "https://shop.example.com/orders/1", "imageUrl": "https://cdn.example.com/1.png",
        "severity": "WARNING"});
    let message = json!({"type": "ORDER_PAID", "recipients": [{"id": "u-1"}, {"id": "김-2"}], "channels": [entry],
        "metadata": {"orderId": "1"}});
    let id = app.post("/v1/messages", message).await.expect(202).id();
    assert_eq!(app.counts("u-1").await, (0, 0), "it was not delivered yet");
    app.work().await;
    let shown = app.message(&id).await;
    assert_eq!((&shown["status"], &shown["deliveries"][0]["status"]), (&json!("COMPLETED"), &json!("DELIVERED")));
    assert_eq!(app.events(&id).await, ["delivery.delivered"; 2]);
    for (user, no) in [("u-1", 1), ("김-2", 2)] {
        let page = app.as_user(user, "GET", "/v1/inbox", None).await.expect(200).body;
        let item = &page["items"][0];
        let text = json!([
            item["id"],
            item["type"],
            item["title"],
            item["body"],
            item["actionUrl"],
            item["imageUrl"],
            item["category"],
            item["severity"],
            item["data"],
            item["seen"],
            item["read"],
            item["seq"]
        ]);
        let posted = json!([format!("{id}-{no}"), "ORDER_PAID", "Paid", "Thank you.",
            "https://shop.example.com/orders/1", "https://cdn.example.com/1.png", "orders", "WARNING",
            {"orderId": "1"}, false, false, 1]);
        assert_eq!(text, posted);
        assert_eq!(page["nextCursor"], json!(null));
        assert_eq!(app.counts(user).await, (1, 1));
    }
    assert_eq!(app.work().await, 0);
    assert_eq!(app.count("select count(*) from inbox_items").await, 2);

    for (field, value, reason) in [
        ("actionUrl", json!("javascript:alert(1)"), "url_invalid"),
        ("imageUrl", json!("http://cdn.example.com/1.png"), "url_invalid"),
        ("severity", json!("LOUD"), "enum"),
        ("to", json!("x".repeat(129)), "content_too_long"),
    ] {
        let mut message = to_inbox(&["u-1"], "x");
        message["channels"][0][field] = value;
        app.post("/v1/messages", message).await.refused(422, reason);
    }
    app.done().await;
}

/// Items are read, archived and snoozed, and the reverse: each change counts once, is repeated without effect, and
/// never leaves a gap in the user's stream (L2, L8); a snoozed item arrives again.
#[tokio::test]
async fn item_changes_once_and_a_snoozed_one_arrives_again() {
    let app = App::new().await;
    let [a, b, c] = [app.arrive("u-1", "a").await, app.arrive("u-1", "b").await, app.arrive("u-1", "c").await];
    assert_eq!(
        (app.inbox("u-1", "").await, app.counts("u-1").await),
        (vec!["c".into(), "b".into(), "a".into()], (3, 3))
    );
    let change = async |id: &str, change: &str| {
        app.as_user("u-1", "POST", &format!("/v1/inbox/{id}/{change}"), None).await.expect(200).body
    };
    for _again in 0..2 {
        assert_eq!(change(&a, "read").await["read"], true);
        assert_eq!((app.counts("u-1").await, app.inbox("u-1", "?filter=UNREAD").await.len()), ((3, 2), 2));
    }
    assert_eq!(change(&a, "unread").await["readAt"], json!(null));
    change(&b, "archive").await;
    assert_eq!(app.inbox("u-1", "").await, ["c", "a"]);
    assert_eq!(app.inbox("u-1", "?filter=ARCHIVED").await, ["b"]);
    change(&b, "unarchive").await;

    let seen = app.as_user("u-1", "POST", "/v1/inbox/seen", Some(json!({"upTo": 1}))).await.expect(200).body;
    assert_eq!((&seen["unseen"], &seen["unread"]), (&json!(2), &json!(3)));
    let back = app.as_user("u-1", "POST", "/v1/inbox/seen", Some(json!({"upTo": 0}))).await.expect(200).body;
    assert_eq!(back["unseen"], 2, "never backwards");
    app.as_user("u-1", "POST", "/v1/inbox/seen", None).await.expect(200);
    let other = json!({"type": "OTHER"});
    let none = app.as_user("u-1", "POST", "/v1/inbox/read-all", Some(other)).await.expect(200).body;
    assert_eq!((&none["unseen"], &none["unread"]), (&json!(0), &json!(3)));

    let until = |seconds: i64| json!({"until": app.hub.clock.now() + chrono::TimeDelta::seconds(seconds)});
    let snooze = format!("/v1/inbox/{c}/snooze");
    for wrong in [-1, 61 * 86_400] {
        app.as_user("u-1", "POST", &snooze, Some(until(wrong))).await.refused(422, "snooze_invalid");
    }
    app.as_user("u-1", "POST", &snooze, Some(json!({}))).await.refused(422, "required");
    app.as_user("u-1", "POST", &snooze, Some(until(60))).await.expect(200);
    assert_eq!(
        (app.inbox("u-1", "").await, app.inbox("u-1", "?filter=SNOOZED").await),
        (vec!["b".into(), "a".into()], vec!["c".into()])
    );
    app.as_user("u-1", "POST", "/v1/inbox/read-all", None).await.expect(200);
    assert_eq!(app.counts("u-1").await, (0, 0));
    let shards = store::partner::shards(app.hub.store.api()).await.unwrap();
    assert!(!wake_snoozed(&app.hub, &shards).await.unwrap(), "not yet");
    app.advance(60);
    assert!(wake_snoozed(&app.hub, &shards).await.unwrap());
    assert_eq!(
        (app.inbox("u-1", "").await, app.counts("u-1").await),
        (vec!["c".into(), "b".into(), "a".into()], (1, 1))
    );
    app.done().await;
}

/// T1, L11: another user's item, and another partner's user of the same name, are answered like what does not exist; a
/// partner's token names its own users alone, and without a name it has no inbox.
#[tokio::test]
async fn item_of_others_is_answered_like_none() {
    let app = App::new().await;
    let id = app.arrive("u-1", "a").await;
    let (_, _, other) = app.partner(crate::support::app::named("other")).await;
    let none = format!("{}-1", app.hub.next_id());
    let paths = ["read", "unread", "archive", "unarchive"].map(|change| format!("/{change}"));
    for path in paths {
        let [theirs, nobodys] = [&id, &none].map(|id| format!("/v1/inbox/{id}{path}"));
        for (token, user) in [(app.fresh_token().await, "u-2"), (other.clone(), "u-1")] {
            let hidden = app.ask_as(&token, user, "POST", &theirs, None).await.expect(404);
            let absent = app.ask_as(&token, user, "POST", &nobodys, None).await.expect(404);
            assert_eq!(hidden.body["reason"], absent.body["reason"], "{path}");
        }
    }
    let empty = app.ask_as(&other, "u-1", "GET", "/v1/inbox", None).await.expect(200);
    assert_eq!(empty.body["items"], json!([]));
    app.get("/v1/inbox").await.refused(403, "forbidden");
    app.ask("", "GET", "/v1/inbox", None).await.refused(401, "unauthenticated");
    let cursor = "x".repeat(35);
    app.as_user("u-1", "GET", &format!("/v1/inbox?cursor={cursor}"), None).await.refused(400, "cursor_invalid");
    app.as_user("u-1", "GET", "/v1/inbox?filter=LOUD", None).await.refused(400, "query_invalid");
    app.done().await;
}

/// L1, L5: a worker that is lost between the item and the settle leaves the item; the next worker finds it, and the
/// delivery is DELIVERED with one item. Control: without the first call there is no item before the second.
#[tokio::test]
async fn item_of_a_lost_worker_is_there_once() {
    let app = App::new().await;
    for is_called in [true, false] {
        let id = app.post("/v1/messages", to_inbox(&["u-1"], "once")).await.expect(202).id();
        let held = take_one(&app.hub).await;
        if is_called {
            let settles = call(&app.hub, vec![held]).await;
            assert_eq!(settles.len(), 1, "and it is never written");
        }
        let items =
            "select count(*) from inbox_items i join deliveries d using (message_id, no) where d.settled_at is null";
        assert_eq!(app.count(items).await, i64::from(is_called));
        assert_eq!(lose(&app).await, 1);
        app.settle_all().await;
        assert_eq!(app.stands(&id).await.0, "DELIVERED");
    }
    assert_eq!(app.inbox("u-1", "").await, ["once", "once"]);
    app.done().await;
}

/// L2: workers of several processes put items into the same inboxes at the same moment: every delivery has one item,
/// and each stream is numbered without a gap. The same claim, called twice, puts nothing twice.
#[tokio::test]
async fn items_of_many_workers_are_numbered_without_gaps() {
    let app = App::new().await;
    let users: Vec<String> = (0..7).map(|n| format!("u-{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    app.accept_all((0..40).map(|n| to_inbox(&users, &format!("{n}"))).collect()).await;
    let processes = join_all((0..3).map(|_| another(&app))).await;
    let works = processes.iter().map(async |hub| {
        for _ in 0..4 {
            let held = take(hub, 20).await;
            let settles = call(hub, held).await;
            settle(hub, &settles).await.unwrap();
        }
    });
    join_all(works).await;
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from inbox_items").await, 280);
    assert_eq!(app.count("select count(*) from user_heads where seq = 40").await, 7);
    assert_eq!(app.counts("u-3").await, (40, 40));
    let page = app.as_user("u-3", "GET", "/v1/inbox?limit=25", None).await.expect(200).body;
    let rest = format!("/v1/inbox?limit=25&cursor={}", page["nextCursor"].as_str().unwrap());
    let rest = app.as_user("u-3", "GET", &rest, None).await.expect(200).body;
    let seqs = [&page, &rest].map(|page| page["items"].as_array().unwrap().iter().map(|i| i["seq"].as_i64().unwrap()));
    assert_eq!(seqs.into_iter().flatten().collect::<Vec<_>>(), (1..=40).rev().collect::<Vec<_>>());
    for hub in processes {
        stop(hub).await;
    }
    app.done().await;
}

/// A fallback goes to and from an inbox: an e-mail that bounces is put into the inbox, and an item for a user that has
/// withdrawn goes by e-mail.
#[tokio::test]
async fn inapp_stands_by_and_is_stood_by() {
    let app = App::new().await;
    let to_app = json!({"channel": "EMAIL", "to": "bounce@example.com", "subject": "s", "body": "b",
        "fallback": [{"channel": "INAPP", "to": "u-1", "body": "b"}]});
    let id = app.post("/v1/messages", json!({"type": "T", "channels": [to_app]})).await.expect(202).id();
    app.settle_all().await;
    assert_eq!(app.inbox("u-1", "").await, ["b"]);
    assert_eq!(app.message(&id).await["deliveries"][1]["status"], "DELIVERED");

    let user = app.get("/v1/users/u-1").await.expect(200).body["userId"].clone();
    let erased = app.ask(&app.fresh_token().await, "DELETE", "/v1/users/u-1", None).await;
    assert!(erased.status < 300, "{}", erased.text);
    let to_mail = json!({"channel": "INAPP", "to": user, "body": "b",
        "fallback": [{"channel": "EMAIL", "to": "kim@example.com", "subject": "s", "body": "b"}]});
    let id = app.post("/v1/messages", json!({"type": "T", "channels": [to_mail]})).await.expect(202).id();
    app.settle_all().await;
    let shown = app.message(&id).await;
    assert_eq!(
        (&shown["deliveries"][0]["reason"], &shown["deliveries"][1]["status"]),
        (&json!("no_such_recipient"), &json!("SENT"))
    );
    app.done().await;
}
