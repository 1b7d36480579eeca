//! Times of a delivery: scheduled deliveries go at their time, expired ones are not sent.

use chrono::TimeDelta;
use notihub::flow;
use notihub::flow::delivery::sweep::{Sweeper, sweep};
use notihub::provider::simulator::Behaviour;
use serde_json::{Value, json};

use crate::delivery::{steps, story};
use crate::support::app::{App, email, emails, slack_post, start_time};
use crate::support::hubs::{another, grab, promote_all, stop};
use crate::support::message::{delivery, fail, outcomes, post};
use crate::support::notification::{deliveries, notification, order_completed};

/// S3-14: what is scheduled goes when its time has come, not before; two promoters never promote the same row twice.
#[tokio::test]
async fn scheduled_deliveries_are_promoted_once_at_their_time() {
    let app = App::new().await;
    let other = another(&app).await;
    let later = |seconds: i64| (start_time() + TimeDelta::seconds(seconds)).to_rfc3339();
    let mut bodies = emails(1500);
    bodies.iter_mut().for_each(|body| body["scheduledAt"] = json!(later(3600)));
    app.accept_all(bodies).await;
    let mut body = slack_post("much later");
    body["scheduledAt"] = json!(later(3700));
    let much_later = app.accept(body).await;

    assert_eq!(promote_all(&app.hub).await, 0);
    app.advance(3599);
    assert_eq!(promote_all(&app.hub).await, 0);
    assert!(grab(&app.hub, 10).await.is_empty(), "what may not go is not claimed");
    app.advance(1);
    let (mine, theirs) = tokio::join!(promote_all(&app.hub), promote_all(&other));
    assert_eq!(mine + theirs, 1500);
    assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING'").await, 1500);
    assert_eq!(app.stands(&much_later).await.0, "SCHEDULED");
    app.settle_all().await;
    assert_eq!((app.smtp.records().len(), app.slack.records().len()), (1500, 1));
    stop(other).await;
    app.done().await;
}

/// What becomes worthless while it waits is never sent: where a worker claims it, and where none does.
#[tokio::test]
async fn waiting_delivery_expires_at_the_claim_or_the_sweep() {
    let app = App::new().await;
    let until = |seconds: i64| json!((start_time() + TimeDelta::seconds(seconds)).to_rfc3339());
    let mut soon = email("kim@example.com");
    soon["expiresAt"] = until(60);
    let mut in_time = email("lee@example.com");
    in_time["expiresAt"] = until(600);
    let (claimed, in_time) = (app.accept(soon.clone()).await, app.accept(in_time).await);
    app.advance(60);
    app.work().await;
    assert_eq!(app.stands(&claimed).await, ("EXPIRED".into(), Some("expired".into())));
    assert_eq!(app.outcomes(&claimed).await, ["NOT_CALLED"]);
    assert_eq!(app.stands(&in_time).await.0, "SENT");

    soon["expiresAt"] = until(120);
    let unclaimed = app.accept(soon).await;
    assert_eq!(sweep(&app.hub, &mut Sweeper::default()).await.unwrap(), 0);
    app.advance(60);
    assert_eq!(sweep(&app.hub, &mut Sweeper::default()).await.unwrap(), 1);
    assert_eq!(app.stands(&unclaimed).await, ("EXPIRED".into(), Some("expired".into())));
    assert_eq!(app.outcomes(&unclaimed).await, [""; 0]);
    assert_eq!(app.events(&unclaimed).await, ["delivery.expired: expired"]);
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}

/// The sweep goes through any backlog in slices and overlooks nothing, also where very many became ready in one moment.
#[tokio::test]
async fn sweep_of_a_backlog_overlooks_no_expired_delivery() {
    let app = App::new().await;
    let to = |n: usize, who: &str| -> Vec<String> { (0..n).map(|n| format!("{who}{n}@example.com")).collect() };
    let at = |seconds: i64| json!((start_time() + TimeDelta::seconds(seconds)).to_rfc3339());
    let body = |to: Vec<String>| {
        json!({"type": "TEST", "title": "t", "body": "b", "channels": [{"channel": "EMAIL",
        "to": to}]})
    };
    app.accept(body(to(500, "early"))).await;
    // Promoted together, so ready in the same microsecond.
    let (mut stays, mut goes) = (body(to(600, "stays")), body(to(400, "goes")));
    (stays["scheduledAt"], goes["scheduledAt"], goes["expiresAt"]) = (at(60), at(60), at(120));
    app.accept(stays).await;
    let goes = app.accept(goes).await;
    app.advance(60);
    assert_eq!(promote_all(&app.hub).await, 1000);
    app.advance(60);
    let (mut sweeper, mut swept) = (Sweeper::default(), 0);
    for _ in 0..10 {
        swept += sweep(&app.hub, &mut sweeper).await.unwrap();
    }
    assert_eq!(swept, 400, "some were never looked at");
    assert_eq!(app.message(&goes).await["deliveries"][399]["status"], "EXPIRED");
    app.settle_all().await;
    app.done().await;
}

/// A delivery that became worthless while it waited is EXPIRED without a call: by the worker that claims it, or by the
/// sweep where no worker claims.
#[tokio::test]
async fn expired_delivery_is_not_sent() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["expiresAt"] = json!("2027-03-05T00:31:00Z");
    let claimed = post(&app, body.clone()).await;
    app.advance(60);
    app.work().await;
    let answer = delivery(&app, &claimed).await;
    assert_eq!(
        (&answer["status"], &answer["reason"], outcomes(&answer)),
        (&json!("EXPIRED"), &json!("expired"), vec!["NOT_CALLED"])
    );
    assert_eq!(answer["attempts"][0]["calledAt"], Value::Null);
    assert_eq!(story(&app, &claimed).await, steps(&[("accepted", 0), ("claimed", 1), ("not_called", 1), ("event", 1)]));

    body["expiresAt"] = json!("2027-03-05T00:32:00Z");
    let swept = post(&app, body.clone()).await;
    let kept = post(&app, email("lee@example.com")).await;
    app.advance(60);
    assert_eq!(flow::delivery::sweep::sweep(&app.hub, &mut Sweeper::default()).await.unwrap(), 1);
    let answer = delivery(&app, &swept).await;
    assert_eq!((&answer["status"], &answer["attempt"], outcomes(&answer)), (&json!("EXPIRED"), &json!(0), vec![]));
    assert_eq!(delivery(&app, &kept).await["status"], "PENDING");
    assert_eq!(app.count("select count(*) from event_history where event = 'delivery.expired'").await, 2);

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
async fn retry_after_the_expiry_is_not_waited_for() {
    let app = App::new().await;
    for (step, status) in [(fail(503, "service_unavailable"), "EXPIRED"), (Behaviour::Cut, "UNDETERMINED")] {
        app.slack.script(step, 1);
        let mut body = slack_post("x");
        body["expiresAt"] = json!((app.hub.clock.now() + TimeDelta::microseconds(1)).to_rfc3339());
        let id = post(&app, body).await;
        app.work().await;
        let answer = delivery(&app, &id).await;
        assert_eq!(
            (&answer["status"], &answer["reason"], &answer["attempt"]),
            (&json!(status), &json!("expired_before_retry"), &json!(1))
        );
    }
    app.done().await;
}

/// S3-23: what is scheduled waits, and goes at its time.
#[tokio::test]
async fn scheduled_message_goes_at_its_time() {
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
    let answer =
        steps(&[("accepted", 0), ("scheduled", 0), ("claimed", 1), ("called", 1), ("answered", 1), ("event", 1)]);
    assert_eq!(story(&app, &id).await, answer);

    // What is a little past by the hub's clock goes at once.
    let mut body = email("lee@example.com");
    body["scheduledAt"] = json!((app.hub.clock.now() - TimeDelta::seconds(30)).to_rfc3339());
    let accepted = app.post("/v1/messages", body).await.expect(202);
    assert_eq!(accepted.body["deliveries"][0]["status"], "PENDING");
    assert_eq!(app.work().await, 1);
    app.done().await;
}

/// S3-23: scheduling was no goal of seed 003, and is there: what is scheduled is PENDING in its words until its time.
#[tokio::test]
async fn scheduled_notification_is_pending_until_its_time() {
    let app = App::new().await;
    let mut body = order_completed();
    body["scheduledAt"] = json!("2027-03-05T10:00:00+09:00");
    let posted = app.post("/notifications", body).await.expect(202);
    assert_eq!(deliveries(&posted.body), [("EMAIL", "PENDING")]);
    app.advance(1799);
    app.work().await;
    assert_eq!(deliveries(&notification(&app, &posted.id()).await), [("EMAIL", "PENDING")]);
    assert!(app.smtp.records().is_empty());
    app.advance(1);
    app.work().await;
    assert_eq!(deliveries(&notification(&app, &posted.id()).await), [("EMAIL", "SUCCESS")]);
    app.done().await;
}
