//! What becomes of a delivery whose provider says no, says nothing, or says it too late: tried again within the policy,
//! ended honestly, and told step by step.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use notihub::flow;
use notihub::flow::delivery::sweep::Sweeper;
use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::simulator::Behaviour;
use notihub::provider::{Pending, Provider, SendRequest};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use crate::support::{App, email, slack_post};

fn fail(status: u16, text: &str) -> Behaviour {
    Behaviour::Fail { status, text: text.to_owned() }
}

fn at(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().expect("RFC 3339")
}

/// The message's first delivery.
async fn delivery(app: &App, id: &str) -> Value {
    app.message(id).await["deliveries"][0].clone()
}

async fn post(app: &App, body: Value) -> String {
    app.post("/v1/messages", body).await.expect(202).id()
}

fn outcomes(delivery: &Value) -> Vec<&str> {
    delivery["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str().unwrap()).collect()
}

/// (what, attempt) of a message's timeline.
async fn story(app: &App, id: &str) -> Vec<(String, Option<i64>)> {
    let told = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).body;
    let items = told["items"].as_array().unwrap().clone();
    assert!(items.is_sorted_by_key(|i| at(&i["at"])), "oldest first: {told}");
    items.iter().map(|i| (i["what"].as_str().unwrap().to_owned(), i["attempt"].as_i64())).collect()
}

fn steps(list: &[(&str, i64)]) -> Vec<(String, Option<i64>)> {
    list.iter().map(|(what, n)| ((*what).to_owned(), Some(*n).filter(|n| *n > 0))).collect()
}

/// S0-11, S0-12, S0-14, S1-36, S1-37, S1-38, S3-24: a temporary no waits apart from what may go and is tried again after one
/// second, then two, each spread by chance over all of it (full jitter); not a moment before, three times in all, and then it
/// is FAILED with what the provider said.
#[tokio::test]
async fn a_temporary_no_is_tried_three_times() {
    let app = App::new().await;
    app.slack.script(fail(503, "service_unavailable"), 3);
    let id = post(&app, slack_post("disk full")).await;
    for (attempt, shortest, longest) in [(1, 0, 1000), (2, 0, 2000)] {
        app.work().await;
        let waits = delivery(&app, &id).await;
        assert_eq!(
            (&waits["status"], &waits["reason"], &waits["attempt"]),
            (&json!("SCHEDULED"), &json!("provider_error"), &json!(attempt))
        );
        assert_eq!((&waits["maxAttempts"], &waits["settledAt"]), (&json!(3), &Value::Null));
        assert_eq!(app.message(&id).await["status"], "PROCESSING");
        let pause = at(&waits["nextAt"]) - app.hub.clock.now();
        assert!((shortest..=longest).contains(&pause.num_milliseconds()), "attempt {attempt}: {pause}");
        assert_eq!(waits["attempts"][attempt - 1]["nextAt"], waits["nextAt"]);
        let nearly = (pause - TimeDelta::milliseconds(1)).max(TimeDelta::zero());
        app.hub.clock.advance(nearly);
        assert_eq!(app.work().await, i64::from(nearly == pause) as u64, "not before its time");
        app.hub.clock.advance(pause - nearly);
    }
    assert_eq!(app.work().await, 1);
    let ended = delivery(&app, &id).await;
    assert_eq!(
        (&ended["status"], &ended["reason"], &ended["nextAt"]),
        (&json!("FAILED"), &json!("provider_error"), &Value::Null)
    );
    assert_eq!(outcomes(&ended), ["REJECTED"; 3]);
    let last = &ended["attempts"][2];
    assert_eq!(
        (&last["errorCode"], &last["errorReason"], &last["errorDetail"], &last["provider"]),
        (&json!("service_unavailable"), &json!("provider_error"), &json!("answered 503"), &json!("slack"))
    );
    assert_eq!(app.message(&id).await["status"], "FAILED");
    app.advance(3600);
    assert_eq!(app.work().await, 0, "spent is spent");
    assert!(app.slack.records().is_empty());
    app.done().await;
}

/// S3-24: what failed can be found by its status and its reason; there it stays until somebody decides.
#[tokio::test]
async fn what_failed_is_kept_and_can_be_found() {
    let app = App::new().await;
    let id = post(&app, email("bounce@example.com")).await;
    post(&app, email("kim@example.com")).await;
    app.slack.script(fail(400, "invalid_payload"), 1);
    post(&app, slack_post("failed for another reason")).await;
    app.work().await;
    let found = app.get("/v1/deliveries?status=FAILED&error=no_such_recipient").await.expect(200).body;
    assert_eq!((found["items"].as_array().unwrap().len(), &found["items"][0]["messageId"]), (1, &json!(id)));
    app.done().await;
}

/// S1-36: after a temporary no the next attempt arrives, once; how many there may be is a setting.
#[tokio::test]
async fn a_retry_arrives_once() {
    let app = App::with(&["--retry-max-attempts=5", "--retry-schedule=EMAIL=backoff"]).await;
    app.smtp.script(fail(451, "4.3.0 try again"), 4);
    let id = post(&app, email("kim@example.com")).await;
    app.settle_all().await;
    let told = delivery(&app, &id).await;
    assert_eq!((&told["status"], &told["attempt"], &told["maxAttempts"]), (&json!("SENT"), &json!(5), &json!(5)));
    assert_eq!((&told["possiblySent"], &told["reason"]), (&json!(false), &Value::Null));
    assert_eq!(outcomes(&told), ["REJECTED", "REJECTED", "REJECTED", "REJECTED", "ACCEPTED"]);
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}

/// S1-48, S1-50: a no for good ends the delivery at once, with the provider's code and our word for it.
#[tokio::test]
async fn a_no_for_good_is_final_at_once() {
    let app = App::new().await;
    for (status, word, reason) in [
        (400, "invalid_payload", "content_refused"),
        (404, "channel_not_found", "no_such_recipient"),
        (403, "invalid_token", "sender_not_usable"),
        (410, "channel_is_archived", "no_such_recipient"),
        (302, "moved", "sender_not_usable"),
    ] {
        app.slack.script(fail(status, word), 1);
        let id = post(&app, slack_post("x")).await;
        app.work().await;
        let told = delivery(&app, &id).await;
        assert_eq!(
            (&told["status"], &told["reason"], &told["attempt"]),
            (&json!("FAILED"), &json!(reason), &json!(1)),
            "{word}"
        );
        let code = if status == 302 { "http_302" } else { word };
        assert_eq!(told["attempts"][0]["errorCode"], code);
    }
    let id = post(&app, email("bounce@example.com")).await;
    app.work().await;
    let told = delivery(&app, &id).await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("FAILED"), &json!("no_such_recipient")));
    assert_eq!(told["attempts"][0]["errorCode"], "smtp_550");
    assert!(told["attempts"][0]["errorDetail"].as_str().unwrap().contains("5.1.1"), "{told}");
    assert!(app.slack.records().is_empty() && app.smtp.records().is_empty());
    app.done().await;
}

/// S1-47: a provider that names the time to come back is asked again then, and as much later at most; an absurd time is
/// kept within the ceiling.
#[tokio::test]
async fn retry_after_is_honoured_within_bounds() {
    for (said, shortest, longest) in [(30, 30_000, 60_000), (0, 1_000, 2_000), (1_000_000, 3_600_000, 4_500_000)] {
        // A destination of its own each: the next one to the same would wait for its pace.
        let app = App::new().await;
        app.slack.script(Behaviour::Limit { retry_after: said }, 1);
        let id = post(&app, slack_post("x")).await;
        app.work().await;
        let waits = delivery(&app, &id).await;
        assert_eq!((&waits["status"], &waits["reason"]), (&json!("SCHEDULED"), &json!("throttled")));
        let pause = at(&waits["nextAt"]) - app.hub.clock.now();
        assert!((shortest..=longest).contains(&pause.num_milliseconds()), "{said}: {pause}");
        app.hub.clock.advance(TimeDelta::milliseconds(shortest - 1));
        assert_eq!(app.work().await, 0, "{said}: not before its time");
        app.hub.clock.advance(TimeDelta::milliseconds(longest - shortest + 1));
        assert_eq!(app.work().await, 1, "{said}");
        assert_eq!(delivery(&app, &id).await["status"], "SENT");
        assert_eq!(app.slack.records().len(), 1);
        app.done().await;
    }
}

/// Fault E1: a provider that is asked too fast uses no attempt: what it refused waits, spread, until it is taken. The fault's
/// own input, ten posts of which the provider takes one at a time.
#[tokio::test]
async fn what_is_throttled_arrives_however_often_it_was_refused() {
    for (said, posts, refusals) in [(1, 10, 25), (5, 10, 25), (30, 10, 15), (30, 1, 6)] {
        let app = App::new().await;
        app.slack.script(Behaviour::Limit { retry_after: said }, refusals);
        let mut ids = Vec::new();
        for n in 0..posts {
            ids.push(post(&app, slack_post(&format!("post {n}"))).await);
        }
        app.work().await;
        let mut due = std::collections::BTreeSet::new();
        for id in &ids {
            let waits = delivery(&app, id).await;
            assert_eq!(waits["status"], "SCHEDULED");
            let left = waits["maxAttempts"].as_i64().unwrap() - waits["attempt"].as_i64().unwrap();
            assert_eq!(left, 3, "no attempt is used");
            due.insert(at(&waits["nextAt"]));
        }
        assert_eq!(due.len(), ids.len(), "they do not come back together");
        app.settle_all().await;
        for id in &ids {
            assert_eq!(delivery(&app, id).await["status"], "SENT", "{said}");
        }
        assert_eq!(app.slack.records().len(), posts);
        app.done().await;
    }
}

/// Fault E1: a provider that has refused everything for days uses attempts from then on: nothing waits for ever. Where
/// another channel stands by, its refusals count from the first.
#[tokio::test]
async fn what_is_throttled_for_days_ends() {
    let app = App::new().await;
    app.slack.script(Behaviour::Limit { retry_after: 60 }, 1_000);
    let id = post(&app, slack_post("x")).await;
    for day in 0..3 {
        app.work().await;
        assert_eq!(delivery(&app, &id).await["status"], "SCHEDULED", "day {day}");
        app.advance(24 * 3600);
    }
    for _ in 0..3 {
        app.work().await;
        app.advance(2 * 3600);
    }
    let told = delivery(&app, &id).await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("FAILED"), &json!("throttled")));
    assert_eq!(outcomes(&told), ["REJECTED"; 6]);

    let body = json!({"type": "A", "title": "t", "body": "b", "channels": [{"channel": "SLACK", "to": "ops",
        "fallback": [{"channel": "EMAIL", "to": "kim@example.com", "afterAttempts": 2}]}]});
    let id = post(&app, body).await;
    app.settle_all().await;
    let told = app.message(&id).await;
    let statuses: Vec<&Value> = told["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(statuses, [&json!("FAILED"), &json!("SENT")]);
    app.done().await;
}

/// Refuses so many mails as a server that greylists does, then takes all.
struct Greylist(std::sync::atomic::AtomicUsize);

impl Provider for Greylist {
    fn name(&self) -> &'static str {
        "greylist"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Email)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = |left: usize| left.checked_sub(1);
        let refused = letter.to.starts_with("new") && self.0.fetch_update(SeqCst, SeqCst, left).is_ok();
        Box::pin(async move {
            if !refused {
                return Outcome::Accepted { provider_ref: None };
            }
            let (class, code) = (ErrorClass::RecipientBusy, "smtp_450".to_owned());
            Outcome::Rejected { class, code, detail: "450 4.2.0 greylisted".into(), retry_after: None }
        })
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async { Ok("greylists".to_owned()) })
    }
}

/// Fault E3, RFC 5321 4.5.4.1: mail to a server that greylists for hours is tried for hours, with growing pauses, and holds up
/// no other mail; and only after more than four days it is given up.
#[tokio::test]
async fn mail_that_is_greylisted_is_tried_for_hours_and_days() {
    for (refusals, tries, ending) in [(6, 7, "SENT"), (usize::MAX, 13, "FAILED")] {
        let app = App::with_provider(&[], Arc::new(Greylist(refusals.into()))).await;
        let (began, id) = (app.hub.clock.now(), post(&app, email("new@example.com")).await);
        let mut pauses = Vec::new();
        let told = loop {
            let other = post(&app, email("kim@example.com")).await;
            app.work().await;
            assert_eq!(delivery(&app, &other).await["status"], "SENT", "another's mail is not held up");
            let told = delivery(&app, &id).await;
            if told["status"] != "SCHEDULED" {
                break told;
            }
            assert_eq!(told["reason"], "recipient_not_ready");
            let pause = at(&told["nextAt"]) - app.hub.clock.now();
            pauses.push(pause.num_seconds());
            app.hub.clock.advance(pause + TimeDelta::milliseconds(1));
        };
        assert_eq!((&told["status"], outcomes(&told).len()), (&json!(ending), tries));
        assert!(pauses[3..].iter().all(|pause| *pause >= 1_800), "{pauses:?}");
        assert!(pauses.iter().zip(&pauses[1..]).all(|(one, next)| next * 11 >= one * 10), "{pauses:?}");
        let least = if ending == "SENT" { TimeDelta::hours(3) } else { TimeDelta::days(4) };
        assert!(app.hub.clock.now() - began >= least, "{pauses:?}");
        app.done().await;
    }
}

/// Taken, and cut off before it could be said: e-mail and Slack are asked again, which may make a second copy, and the
/// doubt stays on record.
#[tokio::test]
async fn an_unknown_outcome_is_tried_again_where_a_second_copy_does_no_harm() {
    let app = App::new().await;
    app.slack.script(Behaviour::Cut, 1);
    let both = json!({"type": "A", "title": "t", "body": "b", "channels": [
        {"channel": "SLACK", "to": "ops"}, {"channel": "EMAIL", "to": "cut@example.com"}]});
    let id = post(&app, both).await;
    app.work().await;
    for waits in app.message(&id).await["deliveries"].as_array().unwrap() {
        assert_eq!((&waits["status"], &waits["possiblySent"]), (&json!("SCHEDULED"), &json!(true)), "{waits}");
        assert_eq!(outcomes(waits), ["UNKNOWN"]);
    }
    app.settle_all().await;
    let told = app.message(&id).await;
    assert_eq!(told["status"], "COMPLETED");
    for sent in told["deliveries"].as_array().unwrap() {
        assert_eq!((&sent["status"], &sent["possiblySent"]), (&json!("SENT"), &json!(true)), "{sent}");
        assert_eq!(outcomes(sent), ["UNKNOWN", "ACCEPTED"]);
    }
    assert_eq!(app.slack.records().len(), 2, "the copy that may be one too many");
    let mails = app.smtp.records();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0].message_id, mails[1].message_id, "a mailbox can tell that it is one mail");
    app.done().await;
}

/// What a provider may have taken is never called FAILED: when the attempts are spent it is UNDETERMINED, whatever the
/// other attempts came to.
#[tokio::test]
async fn spent_in_doubt_is_undetermined() {
    let app = App::new().await;
    for script in [
        vec![Behaviour::Cut, Behaviour::Cut, Behaviour::Cut],
        vec![Behaviour::CutBefore, fail(503, "service_unavailable"), fail(503, "service_unavailable")],
        vec![fail(503, "service_unavailable"), Behaviour::Cut, fail(400, "invalid_payload")],
        vec![fail(500, "oops"), fail(500, "oops"), fail(500, "oops")],
    ] {
        for step in &script {
            app.slack.script(step.clone(), 1);
        }
        let id = post(&app, slack_post("x")).await;
        app.settle_all().await;
        let told = delivery(&app, &id).await;
        assert_eq!(
            (&told["status"], &told["attempt"], &told["possiblySent"]),
            (&json!("UNDETERMINED"), &json!(3), &json!(true)),
            "{script:?}"
        );
        let last = story(&app, &id).await.pop().unwrap();
        assert_eq!(last, ("event".to_owned(), Some(3)), "{script:?}");
        assert_eq!(app.message(&id).await["status"], "FAILED", "as a whole it has not succeeded");
        // One that fails again and again is left alone for a while.
        post(&app, slack_post("it works again")).await;
        app.settle_all().await;
    }
    assert_eq!(app.count("select count(*) from events where event = 'delivery.undetermined'").await, 4);
    app.done().await;
}

/// S0-13: where a second copy is not wanted, an unknown outcome ends it: UNDETERMINED at once, and nobody is asked again.
#[tokio::test]
async fn a_channel_that_holds_never_asks_twice() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    app.slack.script(Behaviour::Cut, 1);
    let id = post(&app, slack_post("x")).await;
    app.work().await;
    let told = delivery(&app, &id).await;
    assert_eq!((&told["status"], &told["possiblySent"]), (&json!("UNDETERMINED"), &json!(true)));
    assert_eq!(outcomes(&told), ["UNKNOWN"]);
    assert_eq!(told["attempts"][0]["nextAt"], Value::Null);
    app.advance(3600);
    assert_eq!(app.work().await, 0);
    assert_eq!(app.slack.records().len(), 1);

    // A definite no is not in doubt, and is tried again as ever.
    app.slack.script(fail(503, "service_unavailable"), 1);
    let id = post(&app, slack_post("y")).await;
    app.settle_all().await;
    let told = delivery(&app, &id).await;
    assert_eq!((&told["status"], outcomes(&told)), (&json!("SENT"), vec!["REJECTED", "ACCEPTED"]));
    app.done().await;
}

/// What became worthless while it waited is EXPIRED without a call: by whoever claims it, or by the sweep where nobody
/// claims.
#[tokio::test]
async fn what_is_worthless_is_not_sent() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["expiresAt"] = json!("2027-03-05T00:31:00Z");
    let claimed = post(&app, body.clone()).await;
    app.advance(60);
    app.work().await;
    let told = delivery(&app, &claimed).await;
    assert_eq!(
        (&told["status"], &told["reason"], outcomes(&told)),
        (&json!("EXPIRED"), &json!("expired"), vec!["NOT_CALLED"])
    );
    assert_eq!(told["attempts"][0]["calledAt"], Value::Null);
    assert_eq!(story(&app, &claimed).await, steps(&[("accepted", 0), ("claimed", 1), ("not_called", 1), ("event", 1)]));

    body["expiresAt"] = json!("2027-03-05T00:32:00Z");
    let swept = post(&app, body.clone()).await;
    let kept = post(&app, email("lee@example.com")).await;
    app.advance(60);
    assert_eq!(flow::delivery::sweep::sweep(&app.hub, &mut Sweeper::default()).await.unwrap(), 1);
    let told = delivery(&app, &swept).await;
    assert_eq!((&told["status"], &told["attempt"], outcomes(&told)), (&json!("EXPIRED"), &json!(0), vec![]));
    assert_eq!(delivery(&app, &kept).await["status"], "PENDING");
    assert_eq!(app.count("select count(*) from events where event = 'delivery.expired'").await, 2);

    // A second before it is worthless it is sent.
    body["expiresAt"] = json!("2027-03-05T00:33:00Z");
    let sent = post(&app, body).await;
    app.advance(59);
    app.work().await;
    assert_eq!(delivery(&app, &sent).await["status"], "SENT");
    assert_eq!(app.smtp.records().len(), 2, "the one that was kept, and this one");
    app.done().await;
}

/// A retry that would come too late is not waited for; where an earlier attempt is in doubt, it is not called EXPIRED.
#[tokio::test]
async fn no_retry_begins_after_the_end() {
    let app = App::new().await;
    for (step, status) in [(fail(503, "service_unavailable"), "EXPIRED"), (Behaviour::Cut, "UNDETERMINED")] {
        app.slack.script(step, 1);
        let mut body = slack_post("x");
        body["expiresAt"] = json!((app.hub.clock.now() + TimeDelta::microseconds(1)).to_rfc3339());
        let id = post(&app, body).await;
        app.work().await;
        let told = delivery(&app, &id).await;
        assert_eq!(
            (&told["status"], &told["reason"], &told["attempt"]),
            (&json!(status), &json!("expired_before_retry"), &json!(1))
        );
    }
    app.done().await;
}

/// S3-23: what is scheduled waits, and goes at its time.
#[tokio::test]
async fn what_is_scheduled_goes_at_its_time() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["scheduledAt"] = json!("2027-03-05T02:30:00+01:00");
    let accepted = app.post("/v1/messages", body).await.expect(202);
    assert_eq!(accepted.body["deliveries"][0]["status"], "SCHEDULED");
    let id = accepted.id();
    let waits = delivery(&app, &id).await;
    assert_eq!((&waits["status"], &waits["nextAt"]), (&json!("SCHEDULED"), &json!("2027-03-05T01:30:00.000000Z")));
    assert_eq!(app.message(&id).await["status"], "PENDING");
    app.advance(3599);
    assert_eq!(app.work().await, 0);
    app.advance(1);
    assert_eq!(app.work().await, 1);
    assert_eq!(delivery(&app, &id).await["status"], "SENT");
    let told =
        steps(&[("accepted", 0), ("scheduled", 0), ("claimed", 1), ("called", 1), ("answered", 1), ("event", 1)]);
    assert_eq!(story(&app, &id).await, told);

    // What is a little past by the hub's clock goes at once.
    let mut body = email("lee@example.com");
    body["scheduledAt"] = json!((app.hub.clock.now() - TimeDelta::seconds(30)).to_rfc3339());
    let accepted = app.post("/v1/messages", body).await.expect(202);
    assert_eq!(accepted.body["deliveries"][0]["status"], "PENDING");
    assert_eq!(app.work().await, 1);
    app.done().await;
}

/// Canceled before it went out: nothing goes out, what has gone stays as it is, and to cancel again changes nothing.
#[tokio::test]
async fn cancel_takes_back_what_has_not_gone_out() {
    let app = App::new().await;
    let cancel = async |id: &str| app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200).body;
    let mut scheduled = email("kim@example.com");
    scheduled["scheduledAt"] = json!("2027-03-06T00:00:00Z");
    for body in [email("kim@example.com"), scheduled] {
        let id = post(&app, body).await;
        let told = cancel(&id).await;
        assert_eq!(
            (&told["canceled"], &told["cancelRequested"], &told["messageId"]),
            (&json!(1), &json!(0), &json!(id))
        );
        assert_eq!(
            (&told["deliveries"][0]["status"], &told["deliveries"][0]["reason"]),
            (&json!("CANCELED"), &json!("canceled"))
        );
        assert_eq!(app.message(&id).await["status"], "CANCELED");
        assert_eq!(cancel(&id).await, told);
        assert_eq!(story(&app, &id).await.last().unwrap().0, "event");
    }
    app.advance(2 * 86_400);
    assert_eq!(app.work().await, 0);

    let both = json!({"type": "A", "title": "t", "body": "b", "channels": [
        {"channel": "EMAIL", "to": "kim@example.com"}, {"channel": "EMAIL", "to": "full@example.com"}]});
    let id = post(&app, both).await;
    app.work().await;
    let told = cancel(&id).await;
    let statuses: Vec<&Value> = told["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(
        (statuses, &told["canceled"]),
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
async fn cancel_in_doubt_is_undetermined() {
    let app = App::new().await;
    app.slack.script(Behaviour::Cut, 1);
    let id = post(&app, slack_post("x")).await;
    app.work().await;
    let told = app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200).body;
    assert_eq!((&told["canceled"], &told["deliveries"][0]["status"]), (&json!(0), &json!("UNDETERMINED")));
    assert_eq!(told["deliveries"][0]["reason"], "canceled");
    app.advance(3600);
    assert_eq!(app.work().await, 0);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// Does as it is told, call by call, and can be watched while it does.
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

    fn send<'a>(&'a self, _letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let says = self.says.lock().await.pop().unwrap_or(Says::Yes);
            assert!(says != Says::Panic, "the adapter fails, as it is told to");
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

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async { Ok("scripted".to_owned()) })
    }
}

fn to_app(to: &str) -> Value {
    json!({"type": "A", "body": "b", "channels": [{"channel": "INAPP", "to": to}]})
}

/// Canceled while it is being sent: the wish is noted; what the provider takes now is SENT all the same, and what it does
/// not take is not tried again.
#[tokio::test]
async fn cancel_while_sending_is_a_wish() {
    for (says, ending) in [(Says::Yes, "SENT"), (Says::NotNow, "CANCELED")] {
        let provider = Scripted::new(Channel::Inapp, &[says]);
        let app = App::with_provider(&[], provider.clone()).await;
        let id = post(&app, to_app("u-1")).await;
        let during = async {
            provider.entered.acquire().await.unwrap().forget();
            let told = app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200).body;
            assert_eq!((&told["canceled"], &told["cancelRequested"]), (&json!(0), &json!(1)));
            assert_eq!(
                (&told["deliveries"][0]["status"], &told["deliveries"][0]["cancelRequested"]),
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

/// An adapter that panics ends its own attempt in doubt, and nothing else: others are sent meanwhile, and it is asked
/// again.
#[tokio::test]
async fn an_adapter_that_panics_harms_nobody_else() {
    let provider = Scripted::new(Channel::Push, &[Says::Panic; 4]);
    provider.open.add_permits(100);
    let app = App::with_provider(&[], provider).await;
    let push = |to: &str| json!({"type": "A", "body": "b", "channels": [{"channel": "PUSH", "to": to}]});
    let first = post(&app, push("d-1")).await;
    let mail = post(&app, email("kim@example.com")).await;
    app.work().await;
    assert_eq!(delivery(&app, &mail).await["status"], "SENT");
    app.settle_all().await;
    let told = delivery(&app, &first).await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("UNDETERMINED"), &json!("sender_panicked")));
    assert_eq!(outcomes(&told), ["UNKNOWN"; 3]);
    let second = post(&app, push("d-2")).await;
    app.settle_all().await;
    let told = delivery(&app, &second).await;
    assert_eq!((&told["status"], outcomes(&told)), (&json!("SENT"), vec!["UNKNOWN", "ACCEPTED"]));
    app.done().await;
}

/// A provider that hangs is left after the call budget, and what it was asked is in doubt.
#[tokio::test]
async fn a_provider_that_hangs_is_left_in_time() {
    let app = App::with(&["--call-budget-ms=300", "--connect-budget-ms=200"]).await;
    app.slack.script(Behaviour::Hang, 1);
    let id = post(&app, slack_post("x")).await;
    app.work().await;
    let told = delivery(&app, &id).await;
    assert_eq!(
        (&told["status"], outcomes(&told), &told["possiblySent"]),
        (&json!("SCHEDULED"), vec!["UNKNOWN"], &json!(true))
    );
    assert_eq!(told["attempts"][0]["errorCode"], "no_answer");
    app.settle_all().await;
    assert_eq!(delivery(&app, &id).await["status"], "SENT");
    app.done().await;
}

/// S3-45: what a worker held when it crashed does not stay PROCESSING: when its lease is over another takes it, and the
/// attempt that was lost is on record as in doubt.
#[tokio::test]
async fn what_a_crashed_worker_held_is_taken_back() {
    let app = App::new().await;
    let id = post(&app, email("kim@example.com")).await;
    let lane = notihub::model::lane::Lane::new(Channel::Email, Default::default(), false);
    let look = PlannedClaim { place: (app.partner.shard, lane), from_ready_at: DateTime::UNIX_EPOCH, rows: 10 };
    // Claimed, and then nothing more: this is where a worker dies.
    let claim = flow::delivery::claim::claim(&app.hub, app.hub.next_id(), &[look], 10).await.unwrap();
    drop(claim);
    let held = app.get(&format!("/notifications/{id}")).await.expect(200).body;
    assert_eq!(held["deliveries"][0]["status"], "PROCESSING");
    assert_eq!(app.work().await, 0, "its lease is not over");

    // The lease runs by the database's clock.
    let over = "update deliveries set lease_until = clock_timestamp() - interval '1 ms' where status = 'PROCESSING'";
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    assert_eq!(app.work().await, 1);
    let told = delivery(&app, &id).await;
    assert_eq!((&told["status"], outcomes(&told)), (&json!("SENT"), vec!["UNKNOWN", "ACCEPTED"]));
    assert_eq!(told["attempts"][0]["errorCode"], "worker_lost");
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}

/// S3-4, S3-7: the timeline tells everything that happened and why, oldest first.
#[tokio::test]
async fn the_timeline_tells_everything_in_order() {
    let app = App::new().await;
    app.slack.script(fail(503, "service_unavailable"), 1);
    app.slack.script(Behaviour::Cut, 1);
    let id = post(&app, slack_post("x")).await;
    app.settle_all().await;
    let round = |n| [("claimed", n), ("called", n), ("answered", n)];
    let mut expected = vec![("accepted", 0)];
    for n in 1..=3 {
        expected.extend(round(n));
        expected.push(if n < 3 { ("retry", n) } else { ("event", n) });
    }
    assert_eq!(story(&app, &id).await, steps(&expected));
    let told = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).body;
    let texts: Vec<&str> = told["items"].as_array().unwrap().iter().map(|i| i["detail"].as_str().unwrap()).collect();
    assert_eq!(texts[0], "TEST with 1 delivery, NORMAL");
    assert_eq!(texts[2], "provider slack");
    assert_eq!(texts[3], "REJECTED: service_unavailable · answered 503");
    assert!(
        texts[4].starts_with("not before 2027-03-05T00:30:0") && texts[4].ends_with(" (provider_error)"),
        "{}",
        texts[4]
    );
    assert!(texts[7].starts_with("UNKNOWN: "), "{}", texts[7]);
    assert_eq!((texts[11], texts[12]), ("ACCEPTED", "delivery.sent"));
    assert_eq!(told["items"][1]["deliveryId"], format!("{id}-1"));
    assert_eq!(told["items"][0]["deliveryId"], Value::Null);
    app.done().await;
}

/// S0-37, S0-36: whatever their type, retries wait in one place, SCHEDULED, apart from the queues of the types, and each
/// comes back to its own.
#[tokio::test]
async fn retries_of_all_types_wait_together() {
    let app = App::with(&["--mock=SMS,KAKAO_ALIMTALK,RCS"]).await;
    let channels = ["SMS", "KAKAO_ALIMTALK", "RCS"];
    let to = |channel: &&str| json!({"channel": channel, "to": "010-0000-0002", "body": "x"});
    let body = json!({"type": "TEST", "channels": channels.iter().map(to).collect::<Vec<_>>()});
    let id = post(&app, body).await;
    let lanes = async || -> Vec<i16> {
        let lanes = "select lane from deliveries where status = $1::text::delivery_status order by lane";
        let db = app.db().await;
        sqlx::query_scalar(lanes).bind("PENDING").fetch_all(&db).await.unwrap()
    };
    let queued = lanes().await;
    assert_eq!(queued.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "a queue for each type: {queued:?}");
    assert_eq!(app.work().await, 3);
    assert_eq!(lanes().await, [0i16; 0], "none waits in its queue");
    let waiting = "select count(*) from deliveries where status = 'SCHEDULED' and reason = 'provider_error'";
    assert_eq!(app.count(waiting).await, 3);
    app.advance(2);
    let shards = notihub::store::partner::shards(app.hub.store.engine()).await.unwrap();
    let mut promoter = notihub::flow::delivery::promote::Promoter::default();
    assert_eq!(
        notihub::flow::delivery::promote::promote(&app.hub, &mut promoter, &shards).await.unwrap(),
        3,
        "by one look"
    );
    assert_eq!(lanes().await, queued, "each is in its own queue again");
    app.settle_all().await;
    assert_eq!(app.message(&id).await["status"], "FAILED");
    app.done().await;
}
