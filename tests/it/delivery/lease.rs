//! Leases: deliveries of lost workers are taken back, late answers are fenced, and beginnings are on record where a
//! second copy would do harm.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use notihub::flow;
use notihub::flow::delivery::claim::{claim, claim_suspect};
use notihub::flow::delivery::load::{HeldDelivery, load};
use notihub::flow::delivery::promote::{Promoter, promote};
use notihub::flow::delivery::settle::settle;
use notihub::hub::{Hub, Parts};
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::{BeginRecord, MAX_WORKERS_LOST};
use notihub::model::watermark::PlannedClaim;
use notihub::provider::simulator::Behaviour;
use notihub::shutdown::Shutdown;
use notihub::store::delivery::Settle;
use notihub::store::{self, PoolSizes};
use notihub::worker::{self, Role};
use serde_json::{Value, json};

use crate::support::app::{App, MASTER_KEY, call_one, email, slack_post, slack_posts, start_time};
use crate::support::hubs::{another, asks, grab, lose, reap_all, stop, take, take_one};
use crate::support::message::{delivery, outcomes, post};
use crate::support::wait::until;

/// A worker's claim of the one delivery that waits apart for longest, as far as the call.
async fn take_alone(hub: &Hub) -> HeldDelivery {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    let (claim, _) =
        claim_suspect(hub, hub.next_id(), &shards, &hub.providers.channels()).await.unwrap().expect("one waits apart");
    load(hub, claim).await.held.pop().expect("it is held")
}

/// Claims it only.
async fn grab_alone(hub: &Hub) -> Option<i16> {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    claim_suspect(hub, hub.next_id(), &shards, &hub.providers.channels()).await.unwrap().map(|(_, deaths)| deaths)
}

/// S3-45: a delivery whose worker is lost is taken back and sent by another; the books tell of both attempts.
#[tokio::test]
async fn lease_of_a_lost_worker_ends_and_another_sends() {
    let app = App::new().await;
    let id = app.accept(email("kim@example.com")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(reap_all(&app.hub).await, 0, "its lease runs");
    assert_eq!(app.stands(&id).await.0, "PROCESSING");

    assert_eq!(lose(&app).await, 1);
    let delivery = app.delivery(&id).await;
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())));
    assert_eq!(delivery["possiblySent"], true, "mail is retried, so the call may have been made");
    assert_eq!(delivery["attempts"][0]["outcome"], "UNKNOWN");
    assert_eq!(delivery["attempts"][0]["errorReason"], "worker_lost");
    assert_eq!(app.events(&id).await, [""; 0], "nothing is promised to be told on the way");

    app.work().await;
    assert_eq!(app.stands(&id).await.0, "SENT");
    assert_eq!(app.outcomes(&id).await, ["UNKNOWN", "ACCEPTED"]);
    assert_eq!(app.events(&id).await, ["delivery.sent"]);
    assert_eq!(app.hub.metrics.reaped.get(), 1);
    app.done().await;
}

/// S3-45, fault A1: a delivery that loses every worker ends, with the reason: possibly sent where no beginning is
/// recorded, and not sent where the attempt proves it. It pauses for longer each time, and uses no attempt.
#[tokio::test]
async fn delivery_that_loses_every_worker_ends_after_the_most_deaths() {
    for (flags, status, outcome) in [
        (&["--retry-max-attempts=1"][..], "UNDETERMINED", "UNKNOWN"),
        (&["--retry-max-attempts=1", "--on-unknown=SLACK=hold"], "FAILED", "NOT_CALLED"),
    ] {
        let app = App::with(flags).await;
        let id = app.accept(slack_post("x")).await;
        assert_eq!(grab(&app.hub, 10).await.len(), 1);
        for deaths in 1..MAX_WORKERS_LOST {
            assert_eq!(lose(&app).await, 1);
            assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())), "{deaths}");
            assert!(grab(&app.hub, 10).await.is_empty(), "no claim of many takes it");
            if deaths > 1 {
                assert_eq!(grab_alone(&app.hub).await, None, "it pauses");
                app.advance(30 * 4_i64.pow(deaths as u32 - 2));
            }
            assert_eq!(grab_alone(&app.hub).await, Some(deaths));
        }
        assert_eq!(lose(&app).await, 1);
        assert_eq!(app.stands(&id).await, (status.into(), Some("workers_lost".into())));
        assert_eq!(app.outcomes(&id).await, [outcome; 6]);
        let answer = format!("delivery.{}: workers_lost", status.to_lowercase());
        assert_eq!(app.events(&id).await, [answer]);
        app.done().await;
    }
}

/// Fault A1: three workers are lost between claim and call, each with all that it could claim: no attempt is used, and
/// all hundred are sent, each by one call.
#[tokio::test]
async fn texts_whose_workers_are_lost_before_the_call_are_sent_once() {
    for flags in [&["--on-unknown=SLACK=hold"][..], &[]] {
        let app = App::with(flags).await;
        let mut ids = Vec::new();
        for n in 0..100 {
            ids.push(app.accept(slack_post(&format!("text {n}"))).await);
        }
        assert_eq!(grab(&app.hub, 500).await.len(), 100);
        assert_eq!(lose(&app).await, 100);
        for _ in 0..2 {
            assert_eq!(grab(&app.hub, 500).await.len(), 0, "they wait apart");
            assert_eq!(grab_alone(&app.hub).await, Some(1));
            assert_eq!(lose(&app).await, 1, "alone: it shares its fate with none");
        }
        app.settle_all().await;
        assert_eq!(app.count("select count(*) from deliveries where status = 'SENT'").await, 100);
        let texts: BTreeSet<String> = app.slack.records().into_iter().filter_map(|post| post.text).collect();
        assert_eq!((texts.len(), app.slack.records().len()), (100, 100), "each was called once");
        assert_eq!(app.count("select count(*) from attempt_history where called_at is not null").await, 100);
        let unused = "select count(*) from deliveries where max_attempts - attempt = 2";
        assert_eq!(app.count(unused).await, 100, "two of three attempts are left to each");
        app.done().await;
    }
}

/// Fault A1: a delivery that was lost with its worker is claimed alone until it is called; then it is a delivery like
/// any other.
#[tokio::test]
async fn suspect_that_is_called_is_claimed_with_others_again() {
    let app = App::new().await;
    let id = app.accept(slack_post("x")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(lose(&app).await, 1);
    app.slack.script(Behaviour::Fail { status: 503, text: "service_unavailable".into() }, 1);
    assert_eq!(app.work().await, 1);
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("provider_error".into())));
    assert_eq!(app.count("select count(*) from suspects").await, 0);
    assert!(app.delivery(&id).await["nextAt"].is_string());

    // One that is canceled while it waits apart is forgotten, too.
    let id = app.accept(slack_post("y")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(lose(&app).await, 1);
    assert!(app.delivery(&id).await["nextAt"].is_null(), "the time of its turn is unknown");
    app.post(&format!("/v1/messages/{id}/cancel"), json!({})).await.expect(200);
    assert_eq!(app.stands(&id).await.0, "UNDETERMINED", "it may have been sent");
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from suspects").await, 0);
    app.done().await;
}

/// Fault A3: a delivery that the hub could not begin in time is retried within seconds, however often that happened;
/// the provider is well, and its retry schedule has no part in it.
#[tokio::test]
async fn delivery_not_begun_in_time_is_retried_within_seconds() {
    for flags in [&[][..], &["--on-unknown=SLACK=hold"]] {
        let app = App::with(flags).await;
        let id = app.accept(slack_post("x")).await;
        let mut settings = app.hub.settings.clone();
        settings.timing.lease_ms = 1;
        let late = notihub::flow::start(Parts {
            settings,
            store: crate::support::database::store_of(
                &app.url,
                PoolSizes { api: 2, intake: 2, engine: 2, webhooks: 2 },
            ),
            providers: app.hub.providers.clone(),
            clock: app.hub.clock.clone(),
            shutdown: Shutdown::new(),
            master_keys: vec![MASTER_KEY],
        })
        .await
        .unwrap();
        for _ in 0..12 {
            let asks = asks(&late, 10).await;
            let looks: Vec<PlannedClaim> = asks
                .iter()
                .map(|a| PlannedClaim { place: (a.shard, a.lane), from_ready_at: a.watermark, rows: a.limit })
                .collect();
            let ready = load(&late, claim(&late, late.next_id(), &looks, 10).await.unwrap()).await;
            let mut settles = ready.given_back;
            for held in ready.held {
                settles.push(call_one(&late, held).await);
            }
            assert_eq!(settles.len(), 1);
            settle(&app.hub, &settles).await.unwrap();
            assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("not_begun".into())));
            let next: DateTime<Utc> = app.delivery(&id).await["nextAt"].as_str().unwrap().parse().unwrap();
            assert!(next - app.hub.clock.now() <= TimeDelta::seconds(1), "{next}");
            app.advance(1);
            let shards = store::partner::shards(app.hub.store.engine()).await.unwrap();
            assert_eq!(promote(&app.hub, &mut Promoter::default(), &shards).await.unwrap(), 1);
        }
        app.work().await;
        assert_eq!((app.stands(&id).await.0, app.slack.records().len()), ("SENT".into(), 1));
        let delivery = app.delivery(&id).await;
        assert_eq!((&delivery["attempt"], &delivery["maxAttempts"]), (&json!(13), &json!(15)), "none was used");
        stop(late).await;
        app.done().await;
    }
}

/// A delivery that expired, or was canceled, while a lost worker held it is not sent again; whether it was sent is
/// unknown.
#[tokio::test]
async fn lost_delivery_that_expired_or_was_canceled_is_not_sent_again() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["expiresAt"] = json!((start_time() + TimeDelta::seconds(60)).to_rfc3339());
    let (expired, canceled) = (app.accept(body).await, app.accept(email("lee@example.com")).await);
    assert_eq!(grab(&app.hub, 10).await.len(), 2);
    app.advance(61);
    app.post(&format!("/v1/messages/{canceled}/cancel"), json!({})).await.expect(200);
    assert_eq!(lose(&app).await, 2);
    for id in [expired, canceled] {
        assert_eq!(app.stands(&id).await.0, "UNDETERMINED");
        assert_eq!(app.events(&id).await, ["delivery.undetermined: worker_lost"]);
    }
    app.done().await;
}

/// S3-36: an answer that comes after the lease is over changes nothing but its own attempt.
#[tokio::test]
async fn late_refusal_changes_its_own_attempt_alone() {
    let app = App::new().await;
    let id = app.accept(slack_post("x")).await;
    app.slack.script(Behaviour::Fail { status: 404, text: "no_service".into() }, 1);
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    settle(&app.hub, std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())));
    assert_eq!(app.outcomes(&id).await, ["REJECTED late"]);
    assert_eq!(app.delivery(&id).await["attempts"][0]["errorCode"], "no_service");

    let next = take_alone(&app.hub).await;
    settle(&app.hub, std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(app.stands(&id).await.0, "PROCESSING", "nor the head of its successor");
    let next = call_one(&app.hub, next).await;
    settle(&app.hub, &[next]).await.unwrap();
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(app.stands(&id).await.0, "SENT", "nor an ending");
    assert_eq!(app.outcomes(&id).await, ["REJECTED late", "ACCEPTED"]);
    assert_eq!(app.events(&id).await, ["delivery.sent"]);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// A late yes is worth more than a doubt: whatever waits for its next try is not sent again.
#[tokio::test]
async fn late_acceptance_ends_the_waiting_retry() {
    let app = App::new().await;
    // SCHEDULED, apart from all others
    let id = app.accept(slack_post("pending")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    settle(&app.hub, std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.outcomes(&id).await, ["ACCEPTED late"]);
    assert_eq!(app.events(&id).await, ["delivery.sent: late_answer"]);
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(app.events(&id).await.len(), 1, "told once, however often it is said");

    // SCHEDULED: the second attempt was limited by the provider
    let id = app.accept(slack_post("scheduled")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    app.slack.script(Behaviour::Limit { retry_after: 30 }, 1);
    app.work().await;
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("throttled".into())));
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.outcomes(&id).await, ["ACCEPTED late", "REJECTED"]);

    app.advance(3600);
    assert_eq!(app.work().await, 0, "no retry is left");
    assert_eq!(app.slack.records().len(), 2, "each was sent once");
    app.done().await;
}

/// UNDETERMINED is the one ending that evidence lifts.
#[tokio::test]
async fn late_acceptance_corrects_undetermined_to_sent() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let id = app.accept(slack_post("x")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await.0, "UNDETERMINED");
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.events(&id).await, ["delivery.undetermined: worker_lost", "delivery.sent: late_answer"]);
    assert_eq!(app.message(&id).await["status"], "COMPLETED");
    app.done().await;
}

/// A late yes that comes while the next attempt is under way is not forgotten when that attempt is refused.
#[tokio::test]
async fn late_acceptance_during_the_next_attempt_is_kept() {
    for (refusal, then) in [
        (Behaviour::Limit { retry_after: 30 }, "refused for now: a third call would be a second copy"),
        (Behaviour::Fail { status: 404, text: "no_service".into() }, "refused for good: the first was taken"),
    ] {
        let app = App::new().await;
        let id = app.accept(slack_post("x")).await;
        let late = call_one(&app.hub, take_one(&app.hub).await).await;
        assert_eq!(lose(&app).await, 1);
        app.slack.script(refusal, 1);
        let second = take_alone(&app.hub).await;
        settle(&app.hub, &[late]).await.unwrap();
        assert_eq!(app.stands(&id).await.0, "PROCESSING");
        let second = call_one(&app.hub, second).await;
        settle(&app.hub, &[second]).await.unwrap();
        app.settle_all().await;
        assert_eq!(app.stands(&id).await.0, "SENT", "{then}");
        assert_eq!(app.slack.records().len(), 1, "{then}");
        app.done().await;
    }
}

/// A settle whose answer was lost on the way is sent again: the second does nothing.
#[tokio::test]
async fn settle_repeated_changes_nothing() {
    let app = App::new().await;
    let sent = app.accept(slack_post("sent")).await;
    let first = call_one(&app.hub, take_one(&app.hub).await).await;
    let cut = app.accept(slack_post("cut")).await;
    app.slack.script(Behaviour::Cut, 1);
    let second = call_one(&app.hub, take_one(&app.hub).await).await;
    for _ in 0..2 {
        settle(&app.hub, &[first.clone(), second.clone()]).await.unwrap();
    }
    assert_eq!((app.stands(&sent).await.0, app.outcomes(&sent).await), ("SENT".into(), vec!["ACCEPTED".into()]));
    assert_eq!(app.stands(&cut).await.0, "SCHEDULED");
    assert_eq!(app.outcomes(&cut).await, ["UNKNOWN"], "it was in time the first time");
    assert_eq!(app.events(&sent).await, ["delivery.sent"]);
    app.settle_all().await;
    app.done().await;
}

/// S3-36: the reaper and the worker want the same row at the same moment: the first to lock it applies, once.
#[tokio::test]
async fn settle_beside_a_reap_applies_the_first_alone() {
    let app = App::new().await;
    let over =
        "update deliveries set lease_until = clock_timestamp() - interval '1 second' where status = 'PROCESSING'";

    // The worker first: while its statement holds the row, the reaper passes over it.
    let first = app.accept(slack_post("first")).await;
    let done = call_one(&app.hub, take_one(&app.hub).await).await;
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    let mut worker = app.hub.store.begin_engine().await.unwrap();
    assert_eq!(store::delivery::settle(&mut *worker, &[&done], app.hub.clock.now()).await.unwrap().len(), 1);
    assert_eq!(reap_all(&app.hub).await, 0);
    worker.commit().await.unwrap();
    assert_eq!(reap_all(&app.hub).await, 0);
    assert_eq!((app.stands(&first).await.0, app.outcomes(&first).await.len()), ("SENT".into(), 1));

    // The reaper first: the worker's statement waits for it, and then finds its fence gone.
    let second = app.accept(slack_post("second")).await;
    let late = call_one(&app.hub, take_one(&app.hub).await).await;
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    let shards = store::partner::shards(app.hub.store.engine()).await.unwrap();
    let mut reaper = app.hub.store.begin_engine().await.unwrap();
    let overdue = store::delivery::lock_expired_leases(&mut reaper, &shards, DateTime::UNIX_EPOCH, 10).await.unwrap();
    let [row] = <[_; 1]>::try_from(overdue).unwrap_or_else(|rows| panic!("{} overdue", rows.len()));
    let (outcome, step) = notihub::model::delivery::transition_after_lost_worker(
        &row.head,
        BeginRecord::NotKept,
        1,
        OnUnknown::Retry,
        app.hub.clock.now(),
    );
    let tried = late.ended_attempt.clone().unwrap();
    let tried = store::delivery::EndedAttempt { outcome: outcome.kind(), code: Some("worker_lost".into()), ..tried };
    let back = Settle { step, ended_attempt: Some(tried), provider: None, ..late.clone() };
    let finish = async {
        until("the worker waits", async || app.count("select count(*) from pg_locks where not granted").await > 0)
            .await;
        store::delivery::settle(&mut *reaper, &[&back], app.hub.clock.now()).await.unwrap();
        reaper.commit().await.unwrap();
    };
    let late = [late];
    let (settled, ()) = tokio::join!(settle(&app.hub, &late), finish);
    settled.unwrap();
    assert_eq!(app.outcomes(&second).await, ["ACCEPTED late"]);
    assert_eq!(app.stands(&second).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.slack.records().len(), 2);
    app.done().await;
}

/// Where a second copy would do harm, a worker that is lost before its call was recorded leaves no doubt: sent again.
/// One that is lost after it leaves UNDETERMINED, and no second call.
#[tokio::test]
async fn held_channel_after_a_lost_worker_retries_only_calls_not_begun() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let id = app.accept(slack_post("x")).await;
    assert_eq!(grab(&app.hub, 10).await.len(), 1);
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await, ("SCHEDULED".into(), Some("worker_lost".into())));
    assert_eq!(app.delivery(&id).await["possiblySent"], false);
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED"]);

    let begun = take_alone(&app.hub).await;
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED", "IN_FLIGHT"], "recorded before the call");
    assert!(app.slack.records().is_empty());
    assert_eq!(lose(&app).await, 1);
    assert_eq!(app.stands(&id).await, ("UNDETERMINED".into(), Some("worker_lost".into())));
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED", "UNKNOWN"]);
    app.advance(3600);
    assert_eq!(app.work().await, 0, "it is not sent twice");

    // The worker was only slow.
    let late = call_one(&app.hub, begun).await;
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(app.stands(&id).await, ("SENT".into(), Some("late_answer".into())));
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED", "ACCEPTED late"]);
    assert_eq!(app.events(&id).await, ["delivery.undetermined: worker_lost", "delivery.sent: late_answer"]);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// No beginning can be recorded on a lease that is over, and what is not recorded is not called.
#[tokio::test]
async fn held_channel_with_a_lease_that_is_over_is_not_called() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    let id = app.accept(slack_post("x")).await;
    let mut settings = app.hub.settings.clone();
    settings.timing.lease_ms = 0;
    let hasty = notihub::flow::start(Parts {
        settings,
        store: crate::support::database::store_of(&app.url, PoolSizes { api: 2, intake: 2, engine: 2, webhooks: 2 }),
        providers: app.hub.providers.clone(),
        clock: app.hub.clock.clone(),
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap();
    assert!(take(&hasty, 10).await.is_empty(), "claimed, but not to be called");
    assert_eq!(app.outcomes(&id).await, [""; 0]);
    assert_eq!(reap_all(&app.hub).await, 1);
    assert_eq!(app.outcomes(&id).await, ["NOT_CALLED"]);
    app.settle_all().await;
    assert_eq!((app.stands(&id).await.0, app.slack.records().len()), ("SENT".into(), 1));
    stop(hasty).await;
    app.done().await;
}

/// A worker that stops gives back what it has not called, as it was: the attempt is not counted against it.
#[tokio::test]
async fn delivery_given_back_keeps_its_attempts() {
    for flags in [&[][..], &["--on-unknown=SLACK=hold"]] {
        let app = App::with(flags).await;
        let other = another(&app).await;
        let id = app.accept(slack_post("x")).await;
        let held = take_one(&other).await;
        other.shutdown.stop();
        let back = call_one(&other, held).await;
        settle(&other, &[back]).await.unwrap();
        let delivery = app.delivery(&id).await;
        assert_eq!(app.stands(&id).await, ("PENDING".into(), None));
        assert_eq!((&delivery["attempt"], &delivery["maxAttempts"]), (&json!(1), &json!(4)), "one more in its stead");
        assert_eq!(delivery["possiblySent"], false);
        assert_eq!(delivery["attempts"][0]["outcome"], "NOT_CALLED");
        assert_eq!(delivery["attempts"][0]["calledAt"], Value::Null, "{flags:?}");
        assert!(app.slack.records().is_empty());
        app.work().await;
        assert_eq!((app.stands(&id).await.0, app.slack.records().len()), ("SENT".into(), 1));
        stop(other).await;
        app.done().await;
    }
}

/// Fault A1, its sibling: after a worker was lost a channel's deliveries do not wait for those of another, whose calls
/// hang.
#[tokio::test]
async fn suspects_of_a_channel_do_not_wait_for_another_channels() {
    let app = App::with(&["--mock=SMS"]).await;
    app.slack.script(Behaviour::Hang, 3);
    app.accept_all(slack_posts(3)).await;
    grab(&app.hub, 3).await;
    let text = json!({"type": "T", "body": "b", "channels": [{"channel": "SMS", "to": "010-1234-5678"}]});
    let id = app.post("/v1/messages", text).await.expect(202).id();
    grab(&app.hub, 1).await;
    lose(&app).await;
    worker::start(&app.hub, Role::Worker);
    let sent = async { while app.message(&id).await["status"] != "COMPLETED" {} };
    tokio::time::timeout(Duration::from_secs(10), sent)
        .await
        .expect("three calls that hang take longer, one after the other");
    app.done().await;
}

/// S3-45: deliveries of a crashed worker do not stay PROCESSING: after the lease another worker takes them, and the
/// lost attempt is on record as unknown.
#[tokio::test]
async fn delivery_of_a_crashed_worker_is_sent_after_its_lease() {
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
    let answer = delivery(&app, &id).await;
    assert_eq!((&answer["status"], outcomes(&answer)), (&json!("SENT"), vec!["UNKNOWN", "ACCEPTED"]));
    assert_eq!(answer["attempts"][0]["errorCode"], "worker_lost");
    assert_eq!(app.smtp.records().len(), 1);
    app.done().await;
}
