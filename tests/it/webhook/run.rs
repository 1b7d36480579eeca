//! Webhooks from end to end: the events of messages go to a real server on loopback, signed, in order, again, or not
//! any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;
use notihub::flow;
use notihub::flow::partner::PartnerChange;
use notihub::model::access::principal::Actor;
use notihub::model::delivery::Status;
use notihub::provider::simulator::Behaviour;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::app::{email, slack_post};
use crate::support::programs::python;
use crate::support::receiver::{Answer, Receiver, Recorded};
use crate::webhook::{endpoint, events, here, ids, verify_all};

fn refuse() -> Behaviour {
    Behaviour::Fail { status: 554, text: "no".into() }
}

/// S0-4, S0-44, S0-45, S0-48, S0-49: every outcome is an event, numbered, with a stable id, signed in both ways over
/// the bytes sent; and the message's timeline has it.
#[tokio::test]
async fn webhook_for_each_outcome_is_numbered_and_signed() {
    let (app, receiver) = here().await;
    let (endpoint, secret) = endpoint(&app, &receiver, json!({})).await;
    let mut posted = email("kim@example.com");
    posted["clientMsgId"] = json!("order-1");
    let id = app.post("/v1/messages", posted).await.expect(202).id();
    app.work().await;
    // The endpoint does not ask for order: webhooks may overtake each other.
    let mut records = receiver.records();
    records.sort_by_key(|record| record.header("webhook-id").to_owned());
    assert_eq!(events(&records), ["message.accepted", "message.completed", "delivery.sent"]);
    assert_eq!(ids(&records), [format!("{id}-0-1"), format!("{id}-0-2"), format!("{id}-1-1")]);
    let sent = records[2].json();
    let partner = app.partner.partner_id.to_string();
    let expected = json!({
        "eventId": format!("{id}-1-1"), "event": "delivery.sent", "v": 1, "seq": 1,
        "occurredAt": sent["occurredAt"], "partnerId": partner, "messageId": id, "clientMsgId": "order-1",
            "type": "TEST",
        "deliveryId": format!("{id}-1"), "channel": "EMAIL", "status": "SENT", "attempt": 1, "provider": "smtp",
        "errorCode": null, "errorReason": null,
    });
    assert_eq!(sent, expected);
    assert_eq!(sent["occurredAt"], "2027-03-05T00:30:00.000Z");
    assert_eq!(records[1].json()["status"], "COMPLETED");
    assert!(!records.iter().any(|r| String::from_utf8_lossy(&r.body).contains("kim@")), "nothing of its content");
    verify_all(records.iter().map(|r| (secret.as_str(), r)));
    let story = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).text;
    for report in ["message.accepted", "delivery.sent", "message.completed", endpoint.as_str(), "HTTP 200"] {
        assert!(story.contains(report), "{report}: {story}");
    }
    app.done().await;
}

/// S0-46: a failed webhook is tried again as the published table says, never early and at most a tenth late; then it is
/// a dead letter.
#[tokio::test]
async fn webhook_retry_schedule_is_the_published_one() {
    let (app, receiver) = here().await;
    receiver.law(|_, _| Answer::status(500).body(b"no \x1b[31mway"));
    let (endpoint, _) = endpoint(&app, &receiver, json!({"events": ["delivery.sent"]})).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    for (n, seconds) in (1..).zip([5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]) {
        assert_eq!(receiver.records().len(), n);
        let due = app.hub.clock.now() + TimeDelta::seconds(seconds);
        let [webhook] = <[Value; 1]>::try_from(app.webhooks(&endpoint).await).unwrap();
        let next: chrono::DateTime<chrono::Utc> = webhook["nextAttemptAt"].as_str().unwrap().parse().unwrap();
        assert!(next >= due && next <= due + TimeDelta::seconds(seconds) / 10, "{n}: {next}, due {due}");
        app.advance(seconds - 1);
        app.work().await;
        assert_eq!(receiver.records().len(), n, "not before its time");
        app.hub.clock.advance(next - app.hub.clock.now());
        app.work().await;
    }
    assert_eq!(receiver.records().len(), 10);
    assert_eq!(ids(&receiver.records()).iter().collect::<BTreeSet<_>>().len(), 1, "one event, one id");
    let bodies: BTreeSet<Vec<u8>> = receiver.records().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies.len(), 1, "the same bytes each time");
    let [webhook] = <[Value; 1]>::try_from(app.webhooks(&endpoint).await).unwrap();
    assert_eq!((webhook["status"].as_str(), webhook["nextAttemptAt"].as_str()), (Some("FAILED"), None));
    assert!(webhook.to_string().contains("no [31mway"), "what it answered, without control characters: {webhook}");
    app.done().await;
}

/// S0-46: after a recovery the waiting webhooks of the endpoint arrive at once, each once, under its own id, and no
/// second time; events before the window and of other endpoints keep their pace.
#[tokio::test]
async fn recovery_of_an_endpoint_hastens_its_waiting_webhooks() {
    let (app, receiver) = here().await;
    let other = Receiver::start().await;
    receiver.law(|_, _| Answer::status(500));
    other.law(|_, _| Answer::status(500));
    let (id, _) = endpoint(&app, &receiver, json!({"events": ["delivery.sent"]})).await;
    endpoint(&app, &other, json!({"events": ["delivery.sent"]})).await;
    // One event before the time that is asked for, one dead letter, and twenty that fail twice.
    let early = app.post("/v1/messages", slack_post("early")).await.expect(202).id();
    app.work().await;
    app.advance(1);
    let since = app.hub.clock.now();
    receiver.law(|_, _| Answer::status(410));
    app.post("/v1/messages", slack_post("dead")).await.expect(202);
    app.work().await;
    let token = app.fresh_token().await;
    app.ask(&token, "PATCH", &format!("/v1/webhooks/{id}"), Some(json!({"status": "ACTIVE"}))).await.expect(200);
    receiver.law(|_, _| Answer::status(500));
    let many: Vec<Value> = (0..20).map(|n| slack_post(&format!("{n}"))).collect();
    app.post("/v1/messages/batch", json!({"messages": many})).await.expect(202);
    app.work().await;
    app.advance(6);
    app.work().await;
    let failed = receiver.records();
    assert_eq!(failed.len(), 2 + 1 + 40);
    receiver.law(|_, _| Answer::status(200));
    let body = json!({"since": since.to_rfc3339(), "ratePerSecond": 10});
    let begun = app.post(&format!("/v1/webhooks/{id}/recover"), body).await.expect(202).body;
    assert_eq!((&begun["count"], &begun["waiting"]), (&json!(1), &json!(20)));
    // No faster than the rate of the request.
    let so_far = async || app.get(&format!("/v1/redrives/{}", begun["redriveId"].as_str().unwrap())).await.body;
    for seconds in 1..=3 {
        app.advance(1);
        while flow::redrive::step(&app.hub).await.unwrap() {}
        app.work().await;
        assert!(so_far().await["done"].as_i64().unwrap() <= 10 * seconds);
    }
    assert_eq!((&so_far().await["status"], &so_far().await["done"]), (&json!("DONE"), &json!(21)));
    let arrived = receiver.records().split_off(failed.len());
    let (before, after) = (ids(&failed).into_iter().collect::<BTreeSet<_>>(), ids(&arrived));
    assert_eq!(after.len(), after.iter().collect::<BTreeSet<_>>().len(), "each once");
    assert!(after.iter().all(|id| before.contains(id)), "under the ids they had");
    assert_eq!(after.len(), 21, "and the one before that time still waits");
    let calls = other.records().len();
    for seconds in [400, 4_000, 40_000] {
        app.advance(seconds);
        app.work().await;
    }
    let later = ids(&receiver.records().split_off(failed.len() + after.len()));
    assert!(later.iter().all(|id| id.starts_with(&early)) && later.len() == 1, "{later:?}");
    assert!(app.statuses(&id).await.iter().all(|s| s == "SENT"));
    assert!(other.records().len() > calls, "another endpoint's go on at their own pace");
    app.done().await;
}

/// A hastened webhook that fails waits again, as long as it would have: a recovery does not hasten it a second time.
#[tokio::test]
async fn webhook_hastened_that_fails_waits_again() {
    let (app, receiver) = here().await;
    receiver.law(|_, _| Answer::status(500));
    let (id, _) = endpoint(&app, &receiver, json!({"events": ["delivery.sent"]})).await;
    let since = app.hub.clock.now();
    for n in 0..3 {
        app.post("/v1/messages", slack_post(&n.to_string())).await.expect(202);
    }
    app.work().await;
    let token = app.fresh_token().await;
    let body = json!({"since": since.to_rfc3339(), "ratePerSecond": 1});
    let begun = app.ask(&token, "POST", &format!("/v1/webhooks/{id}/recover"), Some(body)).await.expect(202).body;
    assert_eq!((&begun["count"], &begun["waiting"]), (&json!(0), &json!(3)));
    for _ in 0..4 {
        app.advance(1);
        while flow::redrive::step(&app.hub).await.unwrap() {}
        app.work().await;
    }
    assert_eq!(receiver.records().len(), 6, "twice each, in four seconds instead of five");
    let next = app.webhooks(&id).await.into_iter().map(|w| w["nextAttemptAt"].as_str().unwrap().to_owned());
    let soonest: chrono::DateTime<chrono::Utc> = next.min().unwrap().parse().unwrap();
    assert!(soonest > app.hub.clock.now() + TimeDelta::seconds(290), "the second pause is five minutes");
    // Of a paused endpoint nothing is hastened.
    app.ask(&token, "PATCH", &format!("/v1/webhooks/{id}"), Some(json!({"status": "PAUSED"}))).await.expect(200);
    app.advance(400);
    app.work().await;
    let body = json!({"since": since.to_rfc3339()});
    let begun = app.ask(&token, "POST", &format!("/v1/webhooks/{id}/recover"), Some(body)).await.expect(202).body;
    assert_eq!((&begun["waiting"], receiver.records().len()), (&json!(0), 6));
    app.done().await;
}

/// Retry-After is heard, within bounds.
#[tokio::test]
async fn webhook_retry_after_is_honoured_within_bounds() {
    let (app, receiver) = here().await;
    receiver.queue([
        Answer::status(429).header("retry-after", "40"),
        Answer::status(503).header("retry-after", "99999999"),
        Answer::status(503).header("retry-after", "-5"),
    ]);
    let (endpoint, _) = endpoint(&app, &receiver, json!({"events": ["delivery.sent"]})).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    for (low, high) in [(40, 44), (86_400, 95_040), (1_800, 1_980)] {
        app.work().await;
        let webhook = app.webhooks(&endpoint).await.remove(0);
        let next: chrono::DateTime<chrono::Utc> = webhook["nextAttemptAt"].as_str().unwrap().parse().unwrap();
        let pause = (next - app.hub.clock.now()).num_seconds();
        assert!((low..=high).contains(&pause), "{pause} s, expected {low} to {high}");
        app.hub.clock.advance(next - app.hub.clock.now());
    }
    app.work().await;
    assert_eq!(app.statuses(&endpoint).await, ["SENT"]);
    app.done().await;
}

/// Seven deliveries, two of them refused for good: completion is reported once, after the last.
#[tokio::test]
async fn completion_event_is_sent_once_after_the_last_delivery() {
    let (app, receiver) = here().await;
    endpoint(&app, &receiver, json!({"events": ["message.completed"]})).await;
    let to: Vec<String> = (0..7).map(|n| format!("p{n}@example.com")).collect();
    let body = json!({"type": "TEST", "title": "t", "body": "b", "channels": [{"channel": "EMAIL", "to": to}]});
    let id = app.post("/v1/messages", body).await.expect(202).id();
    app.smtp.script(refuse(), 2);
    for _ in 0..4 {
        app.work().await;
        app.advance(5);
    }
    app.settle_all().await;
    let records = receiver.records();
    assert_eq!(ids(&records), [format!("{id}-0-2")]);
    assert_eq!(records[0].json()["status"], app.message(&id).await["status"]);
    assert_eq!(app.count("select count(*) from endings").await, 0);
    app.done().await;
}

/// A channel whose lanes come after those of WEBHOOK is reported, counted, listed and replayed like any other. A
/// trigger stands in for it: an e-mail is in its lanes once its call is over.
#[tokio::test]
async fn channel_with_lanes_after_webhook_is_reported_like_any_other() {
    let (app, receiver) = here().await;
    let (endpoint, _) = endpoint(&app, &receiver, json!({"ordered": true})).await;
    let run = async |sql| {
        sqlx::raw_sql(sql).execute(&app.db().await).await.unwrap();
    };
    run("create function moved() returns trigger language plpgsql as $$ begin new.lane := old.lane + 72; return new; \
        end $$;
         create trigger moved before update on deliveries for each row
         when (old.status = 'PROCESSING' and new.status <> 'PROCESSING' and old.lane < 6) execute function moved()")
    .await;
    let back = "update deliveries set lane = lane - 72 where lane >= 72; update stat_deltas set lane = lane - 72 \
        where lane >= 72";
    let body = json!({"type": "TEST", "title": "t", "body": "b", "channels": [
        {"channel": "EMAIL", "to": "kim@example.com"}, {"channel": "SLACK", "to": "dev"}]});
    app.smtp.script(Behaviour::Fail { status: 451, text: "later".into() }, 1);
    let id = app.post("/v1/messages", body).await.expect(202).id();
    app.work().await;
    assert_eq!(
        app.count("select count(*) from deliveries where lane between 72 and 77 and status = 'SCHEDULED'").await,
        1
    );
    assert_eq!(events(&receiver.records()), ["message.accepted", "delivery.sent"], "the message is not complete");

    run(back).await;
    app.smtp.script(refuse(), 1);
    app.settle_all().await;
    assert_eq!(
        app.count("select count(*) from deliveries where lane between 72 and 77 and status = 'FAILED'").await,
        1
    );
    let report = receiver.records().split_off(2);
    assert_eq!(events(&report), ["delivery.failed", "message.completed"]);
    assert_eq!(
        (&report[1].json()["status"], &app.message(&id).await["status"]),
        (&json!("PARTIAL"), &json!("PARTIAL"))
    );

    let listed = async |query: &str| {
        let list = app.get(&format!("/v1/deliveries?{query}")).await.expect(200).body;
        list["items"].as_array().unwrap().iter().map(|d| d["to"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ["kim@example.com", "dev"]);
    assert_eq!(listed("status=FAILED").await, ["kim@example.com"]);
    assert_eq!(listed("channel=WEBHOOK").await, [endpoint.as_str(); 4]);

    app.advance(1);
    let replay = json!({"since": "2027-03-05T00:00:00Z", "events": ["delivery.failed"]});
    app.post(&format!("/v1/webhooks/{endpoint}/replay"), replay).await.expect(202);
    app.advance(1);
    while flow::redrive::step(&app.hub).await.unwrap() {}
    app.work().await;
    assert_eq!(ids(&receiver.records().split_off(4)), ids(&report[..1]), "the same event");
    run(back).await;
    app.done().await;
}

/// Several endpoints each hear what they ask for, of their own partner alone.
#[tokio::test]
async fn endpoint_gets_the_events_it_asks_for() {
    let (app, all) = here().await;
    let (failures, other) = (Receiver::start().await, Receiver::start().await);
    endpoint(&app, &all, json!({})).await;
    endpoint(&app, &failures, json!({"events": ["delivery.failed", "delivery.expired"]})).await;
    let (_, _, token) = app.partner(crate::support::app::named("other")).await;
    let body = json!({"url": other.url});
    app.ask(&token, "POST", "/v1/webhooks", Some(body)).await.expect(201);
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    assert_eq!((all.records().len(), failures.records().len(), other.records().len()), (3, 0, 0));
    app.smtp.script(refuse(), 1);
    app.post("/v1/messages", email("lee@example.com")).await.expect(202);
    app.work().await;
    assert_eq!(events(&failures.records()), ["delivery.failed"]);
    let failed = failures.records()[0].json();
    assert!(failed["errorReason"].is_string() && failed["errorCode"].is_string(), "{failed}");
    assert_eq!((all.records().len(), other.records().len()), (6, 0));
    app.done().await;
}

/// An answer of 410 disables at once: the webhook is a dead letter, and an event and an e-mail go to the owner.
#[tokio::test]
async fn endpoint_answering_410_is_disabled_at_once() {
    let (app, receiver) = here().await;
    let watch = Receiver::start().await;
    receiver.law(|_, _| Answer::status(410));
    let more = json!({"events": ["delivery.sent"], "contactEmail": "ops@partner.example.com"});
    let (id, _) = endpoint(&app, &receiver, more).await;
    endpoint(&app, &watch, json!({"events": ["endpoint.disabled"]})).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    app.work().await;
    let shown = app.get(&format!("/v1/webhooks/{id}")).await.expect(200).body;
    assert_eq!((shown["status"].as_str(), shown["disabledReason"].as_str()), (Some("DISABLED"), Some("gone")));
    assert_eq!(app.statuses(&id).await, ["FAILED"]);
    let report = watch.records();
    assert_eq!(events(&report), ["endpoint.disabled"]);
    assert_eq!((&report[0].json()["endpointId"], &report[0].json()["errorReason"]), (&json!(id), &json!("gone")));
    let mails = app.smtp.records();
    let mail = mails.iter().find(|m| m.to.iter().any(|to| to.contains("ops@partner"))).expect("a mail to its owner");
    assert!(mail.data.contains(&id), "{}", mail.data);
    // No further event goes there; once it works again, what was lost is recovered.
    app.post("/v1/messages", email("lee@example.com")).await.expect(202);
    app.work().await;
    assert_eq!(receiver.records().len(), 1);
    receiver.law(|_, _| Answer::status(204));
    let token = app.fresh_token().await;
    app.ask(&token, "PATCH", &format!("/v1/webhooks/{id}"), Some(json!({"status": "ACTIVE"}))).await.expect(200);
    app.advance(1);
    let since = (app.hub.clock.now() - TimeDelta::hours(1)).to_rfc3339();
    app.post(&format!("/v1/webhooks/{id}/recover"), json!({"since": since})).await.expect(202);
    app.advance(2);
    flow::redrive::step(&app.hub).await.unwrap();
    app.work().await;
    assert_eq!((receiver.records().len(), app.statuses(&id).await), (2, vec!["SENT".to_owned()]));
    assert_eq!(ids(&receiver.records())[0], ids(&receiver.records())[1], "recovered under its own id");
    app.done().await;
}

/// Five days of nothing but failures disable; one success in between begins them anew.
#[tokio::test]
async fn endpoint_failing_for_five_days_is_disabled() {
    let (app, receiver) = here().await;
    let (id, _) = endpoint(&app, &receiver, json!({"events": ["delivery.sent"]})).await;
    let status = async || app.get(&format!("/v1/webhooks/{id}")).await.expect(200).body["status"].clone();
    let once = async |answer: u16| {
        receiver.law(move |_, _| Answer::status(answer));
        app.post("/v1/messages", slack_post("x")).await.expect(202);
        app.work().await;
        flow::channel::note_answers(&app.hub).await.unwrap();
    };
    once(500).await;
    app.advance(4 * 86_400);
    once(200).await;
    app.advance(86_400);
    once(500).await;
    app.advance(5 * 86_400 - 1);
    once(500).await;
    assert_eq!(status().await, "ACTIVE");
    app.advance(1);
    once(500).await;
    let shown = app.get(&format!("/v1/webhooks/{id}")).await.expect(200).body;
    assert_eq!((shown["status"].as_str(), shown["disabledReason"].as_str()), (Some("DISABLED"), Some("failing")));
    app.done().await;
}

/// S0-45: what a run with retries and a rotation sent is accepted by the official libraries, and refused with one bit
/// flipped.
#[tokio::test]
async fn webhook_run_with_a_rotation_is_accepted_by_official_libraries() {
    let (app, receiver) = here().await;
    // Every third event fails the first time it comes; the second time is seconds later, the third would be minutes.
    let (seen, events) = (Mutex::new(BTreeSet::new()), AtomicUsize::new(0));
    receiver.law(move |_, r| {
        let is_new = seen.lock().unwrap().insert(r.header("webhook-id").to_owned());
        let fails = is_new && events.fetch_add(1, Ordering::Relaxed) % 3 == 1;
        Answer::status(if fails { 500 } else { 200 })
    });
    let (id, old) = endpoint(&app, &receiver, json!({})).await;
    let run = async || {
        for n in 0..4 {
            app.post("/v1/messages", email(&format!("p{n}@example.com"))).await.expect(202);
        }
        app.settle_all().await;
        let records = receiver.records();
        records.len()
    };
    let before = run().await;
    let rotated = app.post(&format!("/v1/webhooks/{id}/rotate"), json!({"overlapSeconds": 86_400})).await.expect(200);
    let new = rotated.body["secret"].as_str().unwrap().to_owned();
    let during = run().await;
    app.advance(86_401);
    let after = run().await;
    let records = receiver.records();
    assert!(before > 12 && during > before + 12 && after > during + 12, "{before}, {during}, {after}");
    let with = |range: std::ops::Range<usize>, secret: &'static str| records[range].iter().map(move |r| (secret, r));
    let (old, new): (&'static str, &'static str) = (old.leak(), new.leak());
    verify_all(with(0..before, old));
    verify_all(with(before..during, old).chain(with(before..during, new)));
    verify_all(with(during..after, new));
    let events: BTreeMap<String, Vec<u8>> =
        records.iter().map(|r| (r.header("webhook-id").to_owned(), r.body.clone())).collect();
    assert_eq!((events.len(), after), (36, 48), "twelve messages with three events each, under one id each");
    app.done().await;
}

/// The content of a message is in an event only where the endpoint asks for it and its partner has the grant.
#[tokio::test]
async fn webhook_content_is_sent_only_where_asked_for_and_granted() {
    let (app, receiver) = here().await;
    let plain = Receiver::start().await;
    let refused = app.post("/v1/webhooks", json!({"url": receiver.url, "includeContent": true})).await;
    assert!([403, 422].contains(&refused.status), "{}", refused.text);
    let admin = Actor::local_admin("test".into());
    let may = PartnerChange { may_receive_content: Some(true), ..PartnerChange::default() };
    flow::partner::update(&app.hub, admin.admin_permit().unwrap(), app.partner.partner_id, may.clone()).await.unwrap();
    endpoint(&app, &receiver, json!({"includeContent": true, "events": ["delivery.sent"]})).await;
    endpoint(&app, &plain, json!({"events": ["delivery.sent"]})).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    let content = &receiver.records()[0].json()["content"];
    assert_eq!((&content["to"], &content["body"]), (&json!("kim@example.com"), &json!("It works.")), "{content}");
    assert!(plain.records()[0].json().get("content").is_none());
    // Taken back, it is not told any more.
    let may_not = PartnerChange { may_receive_content: Some(false), ..PartnerChange::default() };
    flow::partner::update(&app.hub, admin.admin_permit().unwrap(), app.partner.partner_id, may_not).await.unwrap();
    app.post("/v1/messages", email("lee@example.com")).await.expect(202);
    app.work().await;
    assert!(receiver.records()[1].json().get("content").is_none());
    app.done().await;
}

/// An endpoint that never answers holds up no other: a few calls are with it, the rest are given back and come later.
#[tokio::test]
async fn endpoint_that_never_answers_holds_up_no_other() {
    let (app, tarpit) = here().await;
    let quick = Receiver::start().await;
    let gate = CancellationToken::new();
    tarpit.law({
        let gate = gate.clone();
        move |_, _| Answer::status(200).behind(&gate)
    });
    let (stuck, _) = endpoint(&app, &tarpit, json!({"events": ["delivery.sent"]})).await;
    let (other, _, token) = app.partner(crate::support::app::named("other")).await;
    let body = json!({"url": quick.url, "events": ["delivery.sent"]});
    app.ask(&token, "POST", "/v1/webhooks", Some(body)).await.expect(201);
    let messages: Vec<Value> = (0..200).map(|n| slack_post(&format!("{n}"))).collect();
    app.post("/v1/messages/batch", json!({"messages": messages})).await.expect(202);
    app.ask(&token, "POST", "/v1/messages", Some(slack_post("quick"))).await.expect(202);
    let hub = app.hub.clone();
    let working = app.hub.shutdown.spawn(async move { notihub::worker::deliver::deliver_due(&hub).await });
    let report = quick.arrived(1).await;
    assert_eq!(report[0].json()["partnerId"], other.partner_id.to_string());
    assert!(tarpit.most_open() <= 16, "{} calls at once", tarpit.most_open());
    gate.cancel();
    working.await.unwrap().unwrap();
    app.settle_all().await;
    assert!(app.statuses(&stuck).await.iter().all(|s| s == Status::Sent.as_str()));
    assert_eq!(ids(&tarpit.records()).iter().collect::<BTreeSet<_>>().len(), 200);
    app.done().await;
}

/// A request that was enqueued in SQL and refused is reported with its reason: no caller waits for an answer to it.
#[tokio::test]
async fn webhook_for_a_request_refused_in_sql_has_the_reason() {
    let (app, receiver) = here().await;
    endpoint(&app, &receiver, json!({"events": ["message.refused"]})).await;
    let bad = json!({"clientMsgId": "order-9", "type": "TEST", "channels": [{"channel": "EMAIL", "to": "nobody"}]});
    sqlx::query("select notihub.enqueue('test', $1)").bind(&bad).execute(&app.db().await).await.unwrap();
    app.work().await;
    let report = receiver.records();
    assert_eq!(events(&report), ["message.refused"]);
    let body = report[0].json();
    assert_eq!(
        (&body["clientMsgId"], &body["messageId"], &body["errorCode"]),
        (&json!("order-9"), &Value::Null, &json!("E001"))
    );
    assert!(body["errors"].as_array().is_some_and(|e| !e.is_empty()), "{body}");
    app.done().await;
}

/// S0-44: webhooks are as /openapi.json describes them: the headers, the fields of every kind of event, their forms.
#[tokio::test]
async fn webhook_request_is_as_the_document_describes() {
    let (app, receiver) = here().await;
    let gone = Receiver::start().await;
    gone.law(|_, _| Answer::status(410));
    let admin = Actor::local_admin("test".into());
    let may = PartnerChange { may_receive_content: Some(true), ..PartnerChange::default() };
    flow::partner::update(&app.hub, admin.admin_permit().unwrap(), app.partner.partner_id, may).await.unwrap();
    let (id, _) = endpoint(&app, &receiver, json!({"includeContent": true})).await;
    endpoint(&app, &gone, json!({"events": ["message.accepted"], "contactEmail": "ops@partner.example.com"})).await;
    app.smtp.script(refuse(), 1);
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.post(&format!("/v1/webhooks/{id}/test"), json!({})).await;
    let bad = json!({"clientMsgId": "order-9", "type": "TEST", "channels": [{"channel": "EMAIL", "to": "nobody"}]});
    sqlx::query("select notihub.enqueue('test', $1)").bind(&bad).execute(&app.db().await).await.unwrap();
    app.settle_all().await;
    app.post(&format!("/v1/webhooks/{id}/rotate"), json!({"overlapSeconds": 60})).await.expect(200);
    app.post("/v1/messages", slack_post("x")).await.expect(202);
    app.settle_all().await;
    let records = receiver.records();
    let report: BTreeSet<String> = events(&records).into_iter().collect();
    for event in ["endpoint.disabled", "message.refused", "endpoint.test", "delivery.failed", "delivery.sent"] {
        assert!(report.contains(event), "{event}: {report:?}");
    }

    let document = app.get("/openapi.json").await.expect(200).body;
    let operation = &document["webhooks"]["event"]["post"];
    let headers: BTreeSet<String> = operation["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap().to_ascii_lowercase())
        .collect();
    let sent: BTreeSet<String> = records.iter().flat_map(|r| r.headers.iter().map(|h| h.0.clone())).collect();
    let signing = sent.into_iter().filter(|name| name.starts_with("x-") || name.starts_with("webhook-"));
    assert_eq!(headers, signing.collect());

    let at = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    let schema = document.pointer(at.as_str().unwrap().trim_start_matches('#')).unwrap();
    let of = |names: &Value| -> BTreeSet<String> { names.as_object().unwrap().keys().cloned().collect() };
    let bodies: Vec<Value> = records.iter().map(Recorded::json).collect();
    let fields: BTreeSet<String> = bodies.iter().flat_map(of).collect();
    assert_eq!(fields, of(&schema["properties"]));
    let content: BTreeSet<String> = bodies.iter().filter_map(|b| b.get("content")).flat_map(of).collect();
    assert_eq!(content, of(&document["components"]["schemas"]["WebhookContent"]["properties"]));
    let judge = json!({"schema": {"$ref": at, "components": document["components"]}, "bodies": bodies}).to_string();
    // What schemathesis judges by.
    let program = "import json, sys, jsonschema_rs; asked = json.load(sys.stdin)
validator = jsonschema_rs.Draft202012Validator(asked['schema'], validate_formats=True)
for body in asked['bodies']: validator.validate(body)";
    let folder = crate::support::process::Folder::new();
    let asked = folder.path().join("asked");
    std::fs::write(&asked, judge).unwrap();
    let ran = std::process::Command::new(python("jsonschema_rs"))
        .args(["-c", program])
        .stdin(std::fs::File::open(&asked).unwrap())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));

    // The mail about a disabled endpoint is a message of the hub's own, of type ENDPOINT_DISABLED.
    let kinds =
        |event: &str| -> Vec<&Value> { bodies.iter().filter(|b| b["event"] == event).map(|b| &b["type"]).collect() };
    assert!(kinds("message.accepted").contains(&&json!("ENDPOINT_DISABLED")), "{bodies:#?}");
    assert!(kinds("message.accepted").contains(&&json!("TEST")));
    assert_eq!(kinds("endpoint.disabled"), [&Value::Null]);
    app.done().await;
}

/// A test goes to the endpoint that is tested, whatever it asks for, and to no other.
#[tokio::test]
async fn webhook_test_reaches_its_endpoint_alone() {
    let (app, receiver) = here().await;
    let other = Receiver::start().await;
    let (id, secret) = endpoint(&app, &receiver, json!({"events": ["delivery.failed"]})).await;
    endpoint(&app, &other, json!({})).await;
    app.post(&format!("/v1/webhooks/{id}/test"), json!({})).await;
    app.work().await;
    let records = receiver.records();
    assert_eq!((events(&records), other.records().len()), (vec!["endpoint.test".to_owned()], 0));
    verify_all(records.iter().map(|r| (secret.as_str(), r)));
    app.done().await;
}
