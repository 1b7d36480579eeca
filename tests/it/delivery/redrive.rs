//! Dead letters that a caller redrives, and events sent again: one, many at a bounded rate, for one endpoint; the
//! callers that may, the refusals and their reasons.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use notihub::flow;
use notihub::id::Tsid;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::partner::Partner;
use notihub::model::retry::ErrorClass;
use notihub::provider::simulator::Behaviour;
use notihub::provider::{BoxFuture, Extra, Provider, SendRequest};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, email, named, slack_post};
use crate::support::message::{delivery, fail, post};
use crate::support::process::{Folder, Notihub};

/// Redrives the first delivery of a message as the caller of this token.
async fn redrive(app: &App, token: &str, id: &str) -> Answer {
    app.ask(token, "POST", &format!("/v1/deliveries/{id}-1/redrive"), None).await
}

/// (total, success, failed) of all days and types.
async fn counted(app: &App) -> (i64, i64, i64) {
    let items = app.get("/v1/stats/daily").await.expect(200).body["items"].clone();
    let sum = |name: &str| items.as_array().unwrap().iter().map(|day| day[name].as_i64().unwrap()).sum();
    (sum("total"), sum("success"), sum("failed"))
}

/// The delivery events of a message's timeline, in order.
async fn events(app: &App, id: &str) -> Vec<String> {
    let shown = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).body;
    let items = shown["items"].as_array().unwrap().iter().filter(|item| item["what"] == "event");
    let name = |item: &Value| item["detail"].as_str().unwrap().split(':').next().unwrap().to_owned();
    items.map(name).filter(|name| name.starts_with("delivery.")).collect()
}

/// Steps until no job may do anything now.
async fn steps(app: &App) {
    while flow::redrive::step(&app.hub).await.unwrap() {}
}

async fn job(app: &App, token: &str, id: &str) -> Value {
    app.ask(token, "GET", &format!("/v1/redrives/{id}"), None).await.expect(200).body
}

/// What failed for good is tried again when an operator asks, as often as a new one; the statistics follow, and it is
/// in the audit log.
#[tokio::test]
async fn redrive_of_a_dead_letter_is_sent_and_counted() {
    let app = App::new().await;
    let operator = app.staff(StaffRole::Operator).await;
    app.smtp.script(fail(550, "5.1.1 no such user"), 1);
    let mut body = email("kim@example.com");
    body["expiresAt"] = json!((app.hub.clock.now() + TimeDelta::hours(1)).to_rfc3339());
    let id = post(&app, body).await;
    app.work().await;
    assert_eq!(delivery(&app, &id).await["status"], "FAILED");
    assert_eq!(counted(&app).await, (1, 0, 1));
    // A day later it would be worthless, were it not asked for; and it counts where it counted before, until it ends
    // again.
    app.advance(24 * 3600);
    flow::sign_in::maintain_keys(&app.hub).await.unwrap();
    let operator_now = app.staff(StaffRole::Operator).await;
    let answer = redrive(&app, &operator_now, &id).await.expect(200).body;
    assert_eq!(
        (&answer["status"], &answer["reason"], &answer["attempt"], &answer["maxAttempts"], &answer["settledAt"]),
        (&json!("PENDING"), &json!("redriven"), &json!(1), &json!(14), &Value::Null)
    );
    assert_eq!(answer["partnerId"], app.partner.partner_id.to_string());
    assert_eq!(counted(&app).await, (0, 0, 0));
    let overflow = app.count("select count(*) from deliveries where lane % 2 = 1 and expires_at is null").await;
    assert_eq!(overflow, 1, "behind what is new");
    app.work().await;
    let sent = delivery(&app, &id).await;
    assert_eq!((&sent["status"], &sent["attempt"], &sent["possiblySent"]), (&json!("SENT"), &json!(2), &json!(false)));
    assert_eq!(app.smtp.records().len(), 1);
    assert_eq!(counted(&app).await, (1, 1, 0));
    assert_eq!(events(&app, &id).await, ["delivery.failed", "delivery.redriven", "delivery.sent"]);
    let noted = app.count("select count(*) from audit where action = 'delivery.redrive' and object like '%-1'").await;
    assert_eq!(noted, 1);
    redrive(&app, &operator_now, &id).await.refused(422, "not_a_dead_letter");
    redrive(&app, &operator_now, &app.hub.next_id().to_string()).await.refused(404, "not_found");
    redrive(&app, &operator, &id).await;
    app.done().await;
}

/// Again and again, with pauses that begin anew; a doubt that was there before stays: what may have been sent is never
/// called FAILED.
#[tokio::test]
async fn redrive_repeated_keeps_the_doubt() {
    let app = App::new().await;
    let operator = app.staff(StaffRole::Operator).await;
    app.slack.script(Behaviour::Cut, 3);
    let id = post(&app, slack_post("x")).await;
    app.settle_all().await;
    assert_eq!(delivery(&app, &id).await["status"], "UNDETERMINED");
    for round in 1..=2 {
        redrive(&app, &operator, &id).await.expect(200);
        redrive(&app, &operator, &id).await.refused(422, "not_a_dead_letter");
        app.slack.script(fail(503, "service_unavailable"), 1);
        app.slack.script(fail(400, "invalid_payload"), 1);
        app.work().await;
        let waits = delivery(&app, &id).await;
        assert_eq!(waits["status"], "SCHEDULED");
        app.advance(2);
        app.work().await;
        let ended = delivery(&app, &id).await;
        assert_eq!((&ended["status"], &ended["reason"]), (&json!("UNDETERMINED"), &json!("content_refused")));
        assert_eq!(ended["attempt"], 3 + 2 * round);
    }
    redrive(&app, &operator, &id).await.expect(200);
    app.work().await;
    let sent = delivery(&app, &id).await;
    assert_eq!((&sent["status"], &sent["possiblySent"]), (&json!("SENT"), &json!(true)));
    app.done().await;
}

/// Where a second copy costs money or trust, an unknown outcome is not tried again; nor is what is under way, nor what
/// nothing is left of.
#[tokio::test]
async fn redrive_of_what_may_not_be_repeated_is_refused() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let operator = app.staff(StaffRole::Operator).await;
    app.slack.script(Behaviour::Cut, 1);
    let held = post(&app, slack_post("x")).await;
    app.work().await;
    redrive(&app, &operator, &held).await.refused(422, "outcome_held");
    let waits = post(&app, slack_post("y")).await;
    redrive(&app, &operator, &waits).await.refused(422, "not_a_dead_letter");
    app.work().await;
    redrive(&app, &operator, &waits).await.refused(422, "not_a_dead_letter");

    let erased = post(&app, email("bounce@example.com")).await;
    app.work().await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    flow::erase::erase(&app.hub, permit, "bounce@example.com", None, |_| ()).await.unwrap();
    redrive(&app, &operator, &erased).await.refused(422, "content_erased");
    // Nor by a job; and what is held is not counted.
    let all = json!({"dryRun": true});
    let shown = app.ask(&operator, "POST", "/v1/dead-letters/redrive", Some(all)).await.expect(200).body;
    assert_eq!((&shown["count"], &shown["countIsLowerBound"]), (&json!(1), &json!(false)));
    let begun = app.ask(&operator, "POST", "/v1/dead-letters/redrive", Some(json!({}))).await.expect(202).body;
    app.advance(1);
    steps(&app).await;
    let done = job(&app, &operator, begun["redriveId"].as_str().unwrap()).await;
    assert_eq!((&done["status"], &done["count"], &done["done"]), (&json!("DONE"), &json!(1), &json!(0)));
    assert_eq!(app.count("select count(*) from deliveries where status = 'FAILED'").await, 1);
    app.done().await;
}

/// A dry run counts what is then redriven, no more and no less, whatever the filter.
#[tokio::test]
async fn redrive_dry_run_counts_what_is_then_redriven() {
    let app = App::new().await;
    let operator = app.staff(StaffRole::Operator).await;
    let (other, _, other_token) = app.partner(named("other")).await;
    app.slack.script(fail(400, "invalid_payload"), 4);
    for n in 0..4 {
        post(&app, slack_post(&n.to_string())).await;
    }
    app.work().await;
    app.advance(60);
    let later = app.hub.clock.now();
    let many = json!({"type": "A", "title": "t", "body": "b", "channels": [
        {"channel": "EMAIL", "to": (0..7).map(|n| format!("bounce@{n}.example.com")).collect::<Vec<_>>()}]});
    post(&app, many.clone()).await;
    app.ask(&other_token, "POST", "/v1/messages", Some(many)).await.expect(202);
    post(&app, email("kim@example.com")).await;
    app.work().await;
    app.slack.script(Behaviour::Cut, 3);
    post(&app, slack_post("in doubt")).await;
    app.settle_all().await;
    let (mine, mut pending) = (app.partner.partner_id.to_string(), 0);
    for (filter, expected) in [
        (json!({"channel": "KAKAO_ALIMTALK"}), 0),
        (json!({"provider": "nobody"}), 0),
        (json!({"endpointId": mine}), 0),
        (json!({"status": "FAILED", "since": later.to_rfc3339(), "channel": "SLACK"}), 0),
        (json!({"error": "content_refused"}), 4),
        (json!({"status": "UNDETERMINED"}), 1),
        (json!({"partnerId": mine, "until": later.to_rfc3339()}), 0),
        (json!({"partnerId": mine, "since": later.to_rfc3339(), "provider": "smtp"}), 7),
        (json!({}), 7),
        (Value::Null, 0),
    ] {
        let order = |dry_run| Some(json!({"filter": filter, "dryRun": dry_run, "ratePerSecond": 10_000}));
        let path = "/v1/dead-letters/redrive";
        let counted = app.ask(&operator, "POST", path, order(true)).await.expect(200).body;
        assert_eq!(counted["count"], expected, "{filter}");
        let begun = app.ask(&operator, "POST", path, order(false)).await.expect(202).body;
        assert_eq!((&begun["count"], &begun["countIsLowerBound"]), (&json!(expected), &json!(false)), "{filter}");
        assert_eq!(begun["status"], "RUNNING");
        app.advance(1);
        steps(&app).await;
        let done = job(&app, &operator, begun["redriveId"].as_str().unwrap()).await;
        assert_eq!((&done["status"], &done["done"]), (&json!("DONE"), &json!(expected)), "{filter}");
        assert!(done["finishedAt"].is_string() && done["requestedBy"].is_string(), "{done}");
        // They wait from now on, so the next filter meets others.
        pending += expected;
        assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING'").await, pending, "{filter}");
    }
    app.settle_all().await;
    let theirs = app.count(
        "select count(distinct partner_id) from event_history join messages using (shard, message_id) \
        where event = 'delivery.redriven'",
    );
    assert_eq!(theirs.await, 2, "{} and another", other.name);
    app.done().await;
}

/// No job exceeds its rate by a single one, however its turns come; several have theirs side by side; one that is
/// canceled goes no further.
#[tokio::test]
async fn redrive_job_keeps_its_rate() {
    let app = App::new().await;
    let operator = app.staff(StaffRole::Operator).await;
    let all: Vec<String> = (0..60).map(|n| format!("bounce@{n}.example.com")).collect();
    for channel in [&all[..25], &all[25..]] {
        let body = json!({"type": "A", "title": "t", "body": "b", "channels": [{"channel": "EMAIL", "to": channel}]});
        post(&app, body).await;
        app.work().await;
        app.advance(60);
    }
    let later = app.hub.clock.now() - TimeDelta::seconds(60);
    let path = "/v1/dead-letters/redrive";
    let slow = json!({"filter": {"until": later.to_rfc3339()}, "ratePerSecond": 10});
    let slow = app.ask(&operator, "POST", path, Some(slow)).await.expect(202).body;
    let slower = json!({"filter": {"since": later.to_rfc3339()}, "ratePerSecond": 1});
    let slower = app.ask(&operator, "POST", path, Some(slower)).await.expect(202);
    assert_eq!(slower.header("location"), format!("/v1/redrives/{}", slower.body["redriveId"].as_str().unwrap()));
    let (slow, slower) = (slow["redriveId"].as_str().unwrap(), slower.body["redriveId"].as_str().unwrap());
    let done = async |id| job(&app, &operator, id).await["done"].as_i64().unwrap();
    assert!(!flow::redrive::step(&app.hub).await.unwrap(), "nothing yet");
    for (second, expected) in [(1, 10), (2, 20), (3, 25)] {
        if second == 2 {
            // In ten turns instead of one.
            for _ in 0..10 {
                app.hub.clock.advance(TimeDelta::milliseconds(100));
                steps(&app).await;
            }
        } else {
            app.advance(1);
            steps(&app).await;
        }
        assert_eq!((done(slow).await, done(slower).await), (expected, second), "second {second}");
        let redriven = app.count("select count(*) from event_history where event = 'delivery.redriven'").await;
        assert_eq!(redriven, expected + second);
    }
    assert_eq!(job(&app, &operator, slow).await["status"], "DONE");
    // No process ran a step for an hour: the job does not make up for that time.
    app.advance(3600);
    flow::sign_in::maintain_keys(&app.hub).await.unwrap();
    let operator = app.staff(StaffRole::Operator).await;
    steps(&app).await;
    assert_eq!(job(&app, &operator, slower).await["done"], 4);
    let cancel = format!("/v1/redrives/{slower}/cancel");
    for _ in 0..2 {
        let shown = app.ask(&operator, "POST", &cancel, None).await.expect(200).body;
        assert_eq!((&shown["status"], &shown["done"]), (&json!("CANCELED"), &json!(4)));
    }
    app.advance(5);
    steps(&app).await;
    assert_eq!(job(&app, &operator, slower).await["done"], 4);
    let noted = app.count("select count(*) from audit where action in ('redrive.begin', 'redrive.cancel')").await;
    assert_eq!(noted, 3, "two began, one was canceled, once");
    app.done().await;
}

/// However many step at once, and if one of them is cut off in the middle, each is redriven once.
#[tokio::test(flavor = "multi_thread")]
async fn redrive_steps_at_the_same_moment_take_each_once() {
    let app = App::new().await;
    let operator = app.staff(StaffRole::Operator).await;
    let to: Vec<String> = (0..900).map(|n| format!("bounce@{n}.example.com")).collect();
    for part in to.chunks(300) {
        let body = json!({"type": "A", "title": "t", "body": "b", "channels": [{"channel": "EMAIL", "to": part}]});
        post(&app, body).await;
    }
    app.work().await;
    let path = "/v1/dead-letters/redrive";
    let mut jobs = Vec::new();
    // Jobs over the same dead letters: for the second job they are gone.
    for rate in [700, 500, 300] {
        let begun = app.ask(&operator, "POST", path, Some(json!({"ratePerSecond": rate}))).await.expect(202).body;
        assert_eq!(begun["count"], 900);
        jobs.push(begun["redriveId"].as_str().unwrap().to_owned());
    }
    for round in 0..40 {
        app.hub.clock.advance(TimeDelta::milliseconds(100));
        let all = futures_util::future::join_all((0..4).map(|n| {
            let hub = app.hub.clone();
            let stepping = async move { flow::redrive::step(&hub).await };
            async move {
                if n == 0 && round % 3 == 0 {
                    // Given up wherever it is by then, as a process that ends.
                    let _cut = tokio::time::timeout(std::time::Duration::from_millis(round), stepping).await;
                } else {
                    stepping.await.unwrap();
                }
            }
        }));
        all.await;
    }
    steps(&app).await;
    let mut done = 0;
    for id in &jobs {
        let shown = job(&app, &operator, id).await;
        assert_eq!(shown["status"], "DONE", "{shown}");
        done += shown["done"].as_i64().unwrap();
    }
    assert_eq!(done, 900);
    assert_eq!(app.count("select count(*) from event_history where event = 'delivery.redriven'").await, 900);
    assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING'").await, 900);
    app.done().await;
}

/// A receiver of webhooks that keeps what it is sent, and refuses for good while it is down.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    down: bool,
    /// (event id, body)
    taken: Vec<(String, String)>,
}

impl Receiver {
    fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// What it was sent since it was last asked.
    fn taken(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0.lock().unwrap().taken)
    }
}

impl Provider for Receiver {
    fn name(&self) -> &'static str {
        "receiver"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Webhook)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        let Extra::Webhook(request) = letter.extra else { panic!("nothing to send") };
        let mut received = self.0.lock().unwrap();
        let outcome = if received.down {
            let (code, detail) = ("http_400".into(), "down".into());
            Outcome::Rejected { class: ErrorClass::Content, code, detail, retry_after: None }
        } else {
            received.taken.push((request.event_id.clone(), String::from_utf8(request.body.clone()).unwrap()));
            Outcome::Accepted { provider_ref: None }
        };
        Box::pin(async move { outcome })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("is here".into()) })
    }
}

/// An endpoint of a partner's.
pub async fn endpoint(app: &App, partner: &Partner, events: Option<Vec<String>>) -> Tsid {
    let id = app.hub.next_id();
    let secret = app.hub.keyring.seal(&format!("endpoints|secret|{id}"), b"whsec_c2VjcmV0").unwrap();
    let made =
        "insert into endpoints (shard, partner_id, endpoint_id, recipient, url, events, secret, created_at, updated_at)
        values ($1, $2, $3, $4, 'https://example.com/hook', $5, $6, $7, $7)";
    sqlx::query(made)
        .bind(partner.shard)
        .bind(partner.partner_id.0)
        .bind(id.0)
        .bind(id.to_string())
        .bind(events)
        .bind(secret)
        .bind(app.hub.clock.now())
        .execute(&app.db().await)
        .await
        .unwrap();
    id
}

/// Sends all that waits, and the completion events of messages that ended.
async fn settle(app: &App) {
    app.settle_all().await;
    while flow::publish::publish_completions(&app.hub).await.unwrap() {}
    app.settle_all().await;
}

/// S0-44: an endpoint recovers the events that it missed, and has a window of time replayed: the same events, byte for
/// byte, under the same ids; no other endpoint receives them.
#[tokio::test]
async fn recovery_and_replay_repeat_an_endpoints_events() {
    let receiver = Receiver::default();
    let app = App::with_provider(&[], Arc::new(receiver.clone())).await;
    let mine = endpoint(&app, &app.partner, None).await;
    let begin = app.hub.clock.now();
    receiver.set_down(true);
    app.slack.script(fail(503, "service_unavailable"), 1);
    let both = json!({"type": "A", "title": "t", "body": "b", "clientMsgId": "order 1", "channels": [
        {"channel": "SLACK", "to": "ops"}, {"channel": "EMAIL", "to": "bounce@example.com"}]});
    let id = post(&app, both).await;
    settle(&app).await;
    post(&app, email("kim@example.com")).await;
    settle(&app).await;
    let operator = app.staff(StaffRole::Operator).await;
    redrive(&app, &operator, &id).await.refused(422, "not_a_dead_letter");
    let path = format!("/v1/deliveries/{id}-2/redrive");
    app.ask(&operator, "POST", &path, None).await.expect(200);
    settle(&app).await;
    assert!(receiver.taken().is_empty(), "it was down");
    receiver.set_down(false);

    // A partner may have one of its own webhooks sent again …
    let dead = "select message_id from deliveries where lane >= 66 and status = 'FAILED' order by message_id limit 1";
    let one: i64 = sqlx::query_scalar(dead).fetch_one(&app.db().await).await.unwrap();
    redrive(&app, &app.token, &Tsid(one).to_string()).await.expect(200);
    settle(&app).await;
    let first = receiver.taken();
    assert_eq!(first.len(), 1);
    // … or all that failed since then.
    app.advance(1);
    let recover = format!("/v1/webhooks/{mine}/recover");
    let since = json!({"since": begin.to_rfc3339(), "ratePerSecond": 1_000});
    let begun = app.post(&recover, since.clone()).await.expect(202).body;
    assert_eq!(begun["kind"], "RECOVER");
    app.advance(1);
    steps(&app).await;
    let done = app.get(&format!("/v1/redrives/{}", begun["redriveId"].as_str().unwrap())).await.expect(200).body;
    assert_eq!((&done["status"], &done["done"]), (&json!("DONE"), &begun["count"]));
    settle(&app).await;
    let recovered: BTreeSet<_> = receiver.taken().into_iter().chain(first).collect();
    let ids = |all: &BTreeSet<(String, String)>| all.iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>();
    let in_books = "select message_id, no, seq from event_history e where no = 0 or exists (select from deliveries d
        where d.shard = e.shard and d.message_id = e.message_id and d.no = e.no and d.lane < 66)";
    let in_books: Vec<(i64, i16, i16)> = sqlx::query_as(in_books).fetch_all(&app.db().await).await.unwrap();
    let in_books: BTreeSet<String> = in_books.iter().map(|(m, no, seq)| format!("{}-{no}-{seq}", Tsid(*m))).collect();
    assert_eq!(ids(&recovered), in_books);
    assert_eq!(in_books.len(), 9, "2 × accepted and completed, sent, failed, redriven, failed, sent: {in_books:?}");
    let events: BTreeSet<String> = recovered
        .iter()
        .map(|(_, body)| serde_json::from_str::<Value>(body).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events.len(), 5, "{events:?}");
    assert_eq!(app.post(&recover, since).await.expect(202).body["count"], 0, "nothing is left");

    // Others do not hear of a replay, and an endpoint hears what it asks for.
    let other = endpoint(&app, &app.partner, Some(vec!["delivery.failed".into()])).await;
    for (endpoint, extra, expected) in [
        (mine, json!({}), 9),
        (mine, json!({"events": ["message.completed", "delivery.sent"]}), 4),
        (other, json!({}), 2),
        (other, json!({"events": ["delivery.sent"]}), 0),
        (mine, json!({"until": begin.to_rfc3339(), "since": (begin - TimeDelta::hours(1)).to_rfc3339()}), 0),
    ] {
        let mut body = json!({"since": begin.to_rfc3339(), "ratePerSecond": 4});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let begun = app.post(&format!("/v1/webhooks/{endpoint}/replay"), body).await.expect(202).body;
        assert_eq!((&begun["kind"], &begun["count"]), (&json!("REPLAY"), &Value::Null));
        // Never more than the rate allows, so the events of a slice of time are sent in parts.
        for _ in 0..3 {
            app.advance(1);
            steps(&app).await;
        }
        let done = app.get(&format!("/v1/redrives/{}", begun["redriveId"].as_str().unwrap())).await.expect(200).body;
        assert_eq!((&done["status"], &done["done"]), (&json!("DONE"), &json!(expected)), "{done}");
        settle(&app).await;
        let shown = receiver.taken();
        assert_eq!(shown.len(), expected, "{extra}: {shown:#?}");
        let again: BTreeSet<_> = shown.into_iter().collect();
        assert!(again.is_subset(&recovered), "{again:#?} is not of {recovered:#?}");
    }
    app.done().await;
}

/// S0-46: a partner redrives neither messages nor another's webhooks, and sees no other's jobs; a window lies in the
/// past and where the books reach; a job at a dead end is not begun.
#[tokio::test]
async fn redrive_of_a_partner_reaches_its_own_webhooks_alone() {
    let app = App::new().await;
    let operator = app.staff(StaffRole::Operator).await;
    let (other, _, other_token) = app.partner(named("other")).await;
    let (mine, theirs) = (endpoint(&app, &app.partner, None).await, endpoint(&app, &other, None).await);
    let id = post(&app, email("bounce@example.com")).await;
    app.work().await;
    redrive(&app, &app.token, &id).await.refused(403, "forbidden");
    redrive(&app, &other_token, &id).await.refused(404, "not_found");
    let path = "/v1/dead-letters/redrive";
    app.post(path, json!({})).await.refused(403, "forbidden");
    let since = json!({"since": app.hub.clock.now() - TimeDelta::hours(1)});
    for deed in ["recover", "replay"] {
        let at = |id: &str| format!("/v1/webhooks/{id}/{deed}");
        app.post(&at(&theirs.to_string()), since.clone()).await.refused(404, "not_found");
        app.post(&at("x"), since.clone()).await.refused(404, "not_found");
        let mine = at(&mine.to_string());
        app.post(&mine, json!({})).await.refused(422, "required");
        app.post(&mine, json!({"since": "2027-03-05T00:30:01Z"})).await.refused(422, "time_range");
        app.post(&mine, json!({"since": "2020-03-05T00:30:01Z"})).await.refused(422, "time_range");
        app.post(&mine, json!({"since": since["since"], "ratePerSecond": 0})).await.refused(422, "min");
        app.post(&mine, json!({"since": since["since"], "x": 0})).await.refused(422, "unknown_field");
        let begun = app.post(&mine, since.clone()).await.expect(202).body;
        assert!(begun.get("requestedBy").is_none() && begun.get("partnerId").is_none(), "{begun}");
        let at = format!("/v1/redrives/{}", begun["redriveId"].as_str().unwrap());
        app.get(&at).await.expect(200);
        app.ask(&other_token, "GET", &at, None).await.refused(404, "not_found");
        app.ask(&other_token, "POST", &format!("{at}/cancel"), None).await.refused(404, "not_found");
        let shown = app.ask(&operator, "GET", &at, None).await.expect(200).body;
        assert_eq!(
            (&shown["partnerId"], &shown["status"]),
            (&json!(app.partner.partner_id.to_string()), &json!("RUNNING"))
        );
    }
    // An operator's job over a partner's dead letters is the operator's.
    let order = json!({"filter": {"partnerId": app.partner.partner_id.to_string()}});
    let job = app.ask(&operator, "POST", path, Some(order)).await.expect(202).body["redriveId"].clone();
    app.get(&format!("/v1/redrives/{}", job.as_str().unwrap())).await.refused(404, "not_found");
    let listed = async |token| {
        let items = app.ask(token, "GET", "/v1/redrives", None).await.expect(200).body["items"].clone();
        items.as_array().unwrap().len()
    };
    assert_eq!((listed(&app.token).await, listed(&other_token).await, listed(&operator).await), (2, 0, 3));
    for (filter, reason) in [
        (json!({"status": "SENT"}), "enum"),
        (json!({"partnerId": "x"}), "id_invalid"),
        (json!({"until": "2027-03-06T00:00:00Z"}), "time_range"),
    ] {
        let order = json!({"filter": filter, "dryRun": true});
        app.ask(&operator, "POST", path, Some(order)).await.refused(422, reason);
    }
    let nobody = json!({"filter": {"partnerId": app.hub.next_id().to_string()}, "dryRun": true});
    app.ask(&operator, "POST", path, Some(nobody)).await.refused(404, "partner_unknown");
    let replay = format!("/v1/webhooks/{mine}/replay");
    for _ in 0..18 {
        app.post(&replay, since.clone()).await.expect(202);
    }
    let first = app.count("select count(*) from redrives where status = 'RUNNING' and kind <> 'REDRIVE'").await;
    let last = app.post(&replay, since.clone()).await;
    assert_eq!((first, last.refused(422, "too_many_redrives").body["code"].as_str()), (20, Some("E001")));
    let disabled = "update endpoints set status = 'DISABLED', disabled_reason = 'gone'";
    sqlx::raw_sql(disabled).execute(&app.db().await).await.unwrap();
    app.post(&replay, since).await.refused(422, "endpoint_disabled");
    app.advance(1);
    steps(&app).await;
    let left = app.count("select count(*) from redrives where status = 'RUNNING'").await;
    assert_eq!(left, 0, "what cannot be told any more is over");
    app.done().await;
}

/// A person at a terminal redrives one, counts many, begins a job over them and sees how it ended; as JSON for
/// programs.
#[tokio::test(flavor = "multi_thread")]
async fn redrive_commands_work_at_a_terminal() {
    let app = App::new().await;
    let (folder, actor) = (Folder::new(), Actor::local_admin("test".into()));
    let permit = actor.admin_permit().unwrap();
    let key = flow::partner::create_key(&app.hub, permit, StaffRole::Operator, "terminal").await.unwrap();
    let redrive = async |args: &[&str]| {
        let program = Notihub::new(&folder, &["redrive"]).env("NOTIHUB_URL", app.uri(""));
        let program = program.env("NOTIHUB_CLIENT_ID", &key.client_id).env("NOTIHUB_CLIENT_SECRET", &key.client_secret);
        args.iter().fold(program, |program, arg| program.arg(*arg)).run().await
    };
    let one = post(&app, email("bounce@example.com")).await;
    for n in 0..5 {
        post(&app, email(&format!("bounce@{n}.example.com"))).await;
    }
    app.work().await;
    let ended = redrive(&[&format!("{one}-1")]).await;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), format!("{one}-1 PENDING").as_str()), "{}", ended.stderr);
    let ended = redrive(&[&format!("{one}-1")]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("can be tried again"), "{}", ended.stderr);
    let ended = redrive(&["--channel", "EMAIL", "--dry-run"]).await;
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "5 dead letters"), "{}", ended.stderr);
    assert_eq!(redrive(&[]).await.code, Some(2), "all there is only where that was said");
    assert_eq!(redrive(&[&format!("{one}-1"), "--all"]).await.code, Some(2));
    let ended = redrive(&["--all", "--no-wait", "--output", "json"]).await;
    let begun: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&begun["count"], &begun["status"]), (&json!(5), &json!("RUNNING")));
    app.hub.clock.advance(TimeDelta::seconds(1));
    steps(&app).await;
    // One that is watched: its turns come while it is.
    app.work().await;
    app.advance(1);
    let turns = async {
        for _ in 0..600 {
            app.hub.clock.advance(TimeDelta::milliseconds(20));
            steps(&app).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let all = ["--all", "--rate", "2"];
    let ended = tokio::select! { ended = redrive(&all) => ended, () = turns => panic!("it does not end") };
    assert!(
        ended.code == Some(0) && ended.stdout.trim().ends_with("DONE, 6 queued again"),
        "{} {}",
        ended.stdout,
        ended.stderr
    );
    let id = ended.stdout.split(' ').next().unwrap().to_owned();
    for args in [&["--job", &id][..], &["--job", &id, "--cancel"]] {
        assert_eq!(redrive(args).await.stdout, ended.stdout, "what has ended stays so");
    }
    let wrong = redrive(&["--error", "nonsense"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("unreachable, throttled"), "{}", wrong.stderr);
    let wrong = redrive(&["--job", "0000000000000"]).await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("404"), "{}", wrong.stderr);
    app.done().await;
}
