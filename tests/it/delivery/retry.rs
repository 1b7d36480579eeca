//! Retries: what is refused for now or unanswered is tried again within the policy, and ends FAILED or UNDETERMINED.

use std::sync::Arc;

use chrono::TimeDelta;
use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::provider::simulator::Behaviour;
use notihub::provider::{BoxFuture, Provider, SendRequest};
use serde_json::{Value, json};

use crate::delivery::{at, story};
use crate::support::app::{App, email, slack_post};
use crate::support::message::{delivery, fail, outcomes, post};

/// S0-11, S0-12, S0-14, S1-36, S1-37, S1-38, S3-24: a temporary no waits apart from what may go and is tried again
/// after one second, then two, each spread by chance over all of it (full jitter); not a moment before, three times in
/// all, and then it is FAILED with what the provider said.
#[tokio::test]
async fn refusal_for_now_is_retried_three_times_with_jitter() {
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

/// S3-24: a failed delivery can be found by its status and its reason, and stays there until an operator decides.
#[tokio::test]
async fn failed_delivery_is_found_by_status_and_reason() {
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
async fn retry_accepted_arrives_once() {
    let app = App::with(&["--retry-max-attempts=5", "--retry-schedule=EMAIL=backoff"]).await;
    app.smtp.script(fail(451, "4.3.0 try again"), 4);
    let id = post(&app, email("kim@example.com")).await;
    app.settle_all().await;
    let answer = delivery(&app, &id).await;
    assert_eq!((&answer["status"], &answer["attempt"], &answer["maxAttempts"]), (&json!("SENT"), &json!(5), &json!(5)));
    assert_eq!((&answer["possiblySent"], &answer["reason"]), (&json!(false), &Value::Null));
    assert_eq!(outcomes(&answer), ["REJECTED", "REJECTED", "REJECTED", "REJECTED", "ACCEPTED"]);
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}

/// S1-48, S1-50: a no for good ends the delivery at once, with the provider's code and our word for it.
#[tokio::test]
async fn refusal_for_good_ends_failed_at_once() {
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
        let answer = delivery(&app, &id).await;
        assert_eq!(
            (&answer["status"], &answer["reason"], &answer["attempt"]),
            (&json!("FAILED"), &json!(reason), &json!(1)),
            "{word}"
        );
        let code = if status == 302 { "http_302" } else { word };
        assert_eq!(answer["attempts"][0]["errorCode"], code);
    }
    let id = post(&app, email("bounce@example.com")).await;
    app.work().await;
    let answer = delivery(&app, &id).await;
    assert_eq!((&answer["status"], &answer["reason"]), (&json!("FAILED"), &json!("no_such_recipient")));
    assert_eq!(answer["attempts"][0]["errorCode"], "smtp_550");
    assert!(answer["attempts"][0]["errorDetail"].as_str().unwrap().contains("5.1.1"), "{answer}");
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

/// Fault E1: a provider that is asked too fast uses no attempt: what it refused waits, spread, until it is taken. The
/// fault's own input, ten posts of which the provider takes one at a time.
#[tokio::test]
async fn throttled_delivery_uses_no_attempt_and_arrives() {
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
async fn throttled_delivery_ends_failed_after_days() {
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
    let answer = delivery(&app, &id).await;
    assert_eq!((&answer["status"], &answer["reason"]), (&json!("FAILED"), &json!("throttled")));
    assert_eq!(outcomes(&answer), ["REJECTED"; 6]);

    let body = json!({"type": "A", "title": "t", "body": "b", "channels": [{"channel": "SLACK", "to": "ops",
        "fallback": [{"channel": "EMAIL", "to": "kim@example.com", "afterAttempts": 2}]}]});
    let id = post(&app, body).await;
    app.settle_all().await;
    let answer = app.message(&id).await;
    let statuses: Vec<&Value> = answer["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
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

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
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

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("greylists".to_owned()) })
    }
}

/// Fault E3, RFC 5321 4.5.4.1: mail to a server that greylists for hours is tried for hours, with growing pauses, and
/// holds up no other mail; and only after more than four days it is given up.
#[tokio::test]
async fn greylisted_mail_is_retried_for_hours_and_days() {
    for (refusals, tries, ending) in [(6, 7, "SENT"), (usize::MAX, 13, "FAILED")] {
        let app = App::with_provider(&[], Arc::new(Greylist(refusals.into()))).await;
        let (began, id) = (app.hub.clock.now(), post(&app, email("new@example.com")).await);
        let mut pauses = Vec::new();
        let answer = loop {
            let other = post(&app, email("kim@example.com")).await;
            app.work().await;
            assert_eq!(delivery(&app, &other).await["status"], "SENT", "another's mail is not held up");
            let answer = delivery(&app, &id).await;
            if answer["status"] != "SCHEDULED" {
                break answer;
            }
            assert_eq!(answer["reason"], "recipient_not_ready");
            let pause = at(&answer["nextAt"]) - app.hub.clock.now();
            pauses.push(pause.num_seconds());
            app.hub.clock.advance(pause + TimeDelta::milliseconds(1));
        };
        assert_eq!((&answer["status"], outcomes(&answer).len()), (&json!(ending), tries));
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
async fn unknown_outcome_is_retried_where_a_second_copy_does_no_harm() {
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
    let answer = app.message(&id).await;
    assert_eq!(answer["status"], "COMPLETED");
    for sent in answer["deliveries"].as_array().unwrap() {
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
async fn attempts_spent_after_an_unknown_outcome_end_undetermined() {
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
        let answer = delivery(&app, &id).await;
        assert_eq!(
            (&answer["status"], &answer["attempt"], &answer["possiblySent"]),
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
    assert_eq!(app.count("select count(*) from event_history where event = 'delivery.undetermined'").await, 4);
    app.done().await;
}

/// S0-13: where a second copy is not wanted, an unknown outcome ends the delivery: UNDETERMINED at once, without
/// another call.
#[tokio::test]
async fn unknown_outcome_on_a_held_channel_ends_undetermined() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    app.slack.script(Behaviour::Cut, 1);
    let id = post(&app, slack_post("x")).await;
    app.work().await;
    let answer = delivery(&app, &id).await;
    assert_eq!((&answer["status"], &answer["possiblySent"]), (&json!("UNDETERMINED"), &json!(true)));
    assert_eq!(outcomes(&answer), ["UNKNOWN"]);
    assert_eq!(answer["attempts"][0]["nextAt"], Value::Null);
    app.advance(3600);
    assert_eq!(app.work().await, 0);
    assert_eq!(app.slack.records().len(), 1);

    // A definite no is not in doubt, and is tried again as ever.
    app.slack.script(fail(503, "service_unavailable"), 1);
    let id = post(&app, slack_post("y")).await;
    app.settle_all().await;
    let answer = delivery(&app, &id).await;
    assert_eq!((&answer["status"], outcomes(&answer)), (&json!("SENT"), vec!["REJECTED", "ACCEPTED"]));
    app.done().await;
}

/// S0-37, S0-36: whatever their type, retries wait in one place, SCHEDULED, apart from the queues of the types, and
/// each comes back to its own.
#[tokio::test]
async fn retries_of_all_types_wait_scheduled_apart_from_their_queues() {
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
