//! Accounts of a channel: shares by weight, another takes over, lookups go where the message went, an operator pauses
//! one.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;
use notihub::flow;
use notihub::flow::delivery::route::downtime;
use notihub::model::capability::Terms;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::lane::Lane;
use notihub::model::retry::ErrorClass;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::LookupResult;
use serde_json::json;

use crate::provider::{Calls, Says, Stub, good, no, weighing};
use crate::support::app::App;

/// A process that knows a newer state than the database, which was set back, goes by the database.
#[tokio::test]
async fn provider_state_set_back_in_the_database_is_followed() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let app =
        App::with_accounts(&[], vec![Stub::new("vendor", Channel::Slack, &says, &calls).on(Terms::default())]).await;
    app.operate("POST", "/v1/providers/vendor/pause").await.expect(200);
    let back = "update provider_states set changed_at = changed_at - interval '1 hour'";
    sqlx::query(back).execute(&app.db().await).await.unwrap();
    let resumed = tokio::time::timeout(Duration::from_secs(60), app.operate("POST", "/v1/providers/vendor/resume"));
    assert_eq!(resumed.await.expect("an answer").expect(200).body["status"], "UP");
    app.one().await;
    app.work().await;
    assert_eq!(calls.count(), 1);
    app.done().await;
}

/// Shares follow the weights; one of weight 0 stands by.
#[tokio::test]
async fn provider_traffic_is_shared_by_weight() {
    let (says, [a, b, c]) = (Says::new(good()), [(); 3].map(|()| Calls::default()));
    let accounts = vec![
        Stub::new("three", Channel::Slack, &says, &a).on(weighing(3)),
        Stub::new("one", Channel::Slack, &says, &b).on(weighing(1)),
        Stub::new("standby", Channel::Slack, &says, &c).on(weighing(0)),
    ];
    let app = App::with_accounts(&[], accounts).await;
    app.post_many(200).await;
    app.work().await;
    assert_eq!((a.count(), b.count(), c.count()), (150, 50, 0));
    app.done().await;
}

/// S1-49: while one is in trouble another of the channel is asked; once it works again it takes its share back, and
/// does not go to and fro.
#[tokio::test]
async fn provider_in_trouble_is_replaced_and_comes_back() {
    let (bad, fine) = (Says::new(no(ErrorClass::ProviderInternal)), Says::new(good()));
    let (first, second) = (Calls::default(), Calls::default());
    let accounts = vec![
        Stub::new("first", Channel::Slack, &bad, &first).on(weighing(1)),
        Stub::new("second", Channel::Slack, &fine, &second).on(weighing(0)),
    ];
    let app = App::with_accounts(&[], accounts).await;
    first.by(&app);
    app.post_many(100).await;
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    let storm = first.count();
    assert_eq!(second.count(), 100);
    assert!(downtime(&app.hub, Channel::Slack).is_none());
    // Open: all go to the second but for probes, one each time it may be probed.
    for _ in 0..12 {
        app.post_many(10).await;
        app.work().await;
        app.advance(10);
    }
    assert!(first.count() - storm <= 6, "{} probes in two minutes", first.count() - storm);
    bad.set(good());
    app.advance(300);
    let recovering = first.count();
    for _ in 0..15 {
        app.post_many(40).await;
        app.work().await;
    }
    assert!((100..600).contains(&(first.count() - recovering)), "little by little");
    let (back, taken) = (first.count(), second.count());
    app.post_many(100).await;
    app.work().await;
    assert_eq!((first.count() - back, second.count() - taken), (100, 0), "it has its share again");
    assert_eq!(app.count("select count(*) from deliveries where status <> 'SENT'").await, 0);
    app.done().await;
}

/// Two accounts that can be asked what they have.
async fn two_that_look_up(says: &Says) -> (App, [Calls; 2]) {
    let calls = [Calls::default(), Calls::default()];
    let stub = |name, n: usize| Stub {
        looked: Some(LookupResult::NotFound),
        ..Stub::new(name, Channel::Slack, says, &calls[n])
    };
    let accounts = vec![stub("first", 0).on(weighing(1)), stub("second", 1).on(weighing(1))];
    (App::with_accounts(&[], accounts).await, calls)
}

/// S1-49: a delivery that a lost worker may have sent is looked up at its own provider, when it can be found there, and
/// at no other.
#[tokio::test]
async fn lookup_of_a_lost_delivery_goes_to_its_provider() {
    let (app, calls) = two_that_look_up(&Says::new(good())).await;
    let id = app.one().await;
    let look = PlannedClaim {
        place: (app.partner.shard, Lane::new(Channel::Slack, Default::default(), false)),
        from_ready_at: DateTime::UNIX_EPOCH,
        rows: 10,
    };
    let claim = flow::delivery::claim::claim(&app.hub, app.hub.next_id(), &[look], 10).await.unwrap();
    // Begun, and then nothing more: this is where a worker dies.
    assert_eq!(flow::delivery::load::load(&app.hub, claim).await.held.len(), 1);
    let over = "update deliveries set lease_until = clock_timestamp() - interval '1 ms' where status = 'PROCESSING'";
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    assert_eq!(app.work().await, 0, "its list may not have it yet");
    assert_eq!(app.message(&id).await["deliveries"][0]["status"], "SCHEDULED");
    app.advance(31);
    assert_eq!(app.work().await, 1);
    let asked: String = sqlx::query_scalar("select provider from attempt_history where outcome = 'UNKNOWN'")
        .fetch_one(&app.db().await)
        .await
        .unwrap();
    let by_name = BTreeMap::from([("first", calls[0].count()), ("second", calls[1].count())]);
    assert_eq!((by_name[asked.as_str()], by_name.values().sum::<usize>()), (1, 1), "{asked}: {by_name:?}");
    app.done().await;
}

/// A delivery that a provider may have accepted, which is no longer in the settings, is sent by no other.
#[tokio::test]
async fn delivery_of_a_removed_provider_is_not_sent_by_another() {
    let unknown = Outcome::Unknown { code: "no_answer", detail: "as the test says".into() };
    let says = Says::new(unknown);
    let (app, calls) = two_that_look_up(&says).await;
    let id = app.one().await;
    app.work().await;
    says.set(good());
    sqlx::query("update deliveries set provider = 'renamed'").execute(&app.db().await).await.unwrap();
    app.settle_all().await;
    assert_eq!(calls.iter().map(Calls::count).sum::<usize>(), 1);
    let delivery = app.message(&id).await["deliveries"][0].clone();
    assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("UNDETERMINED"), &json!("lookup_failed")));
    app.done().await;
}

/// A paused provider is not called, nothing is lost or burnt, and the audit log names the actor.
#[tokio::test]
async fn provider_paused_is_not_called_until_resumed() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let app =
        App::with_accounts(&[], vec![Stub::new("vendor", Channel::Slack, &says, &calls).on(Terms::default())]).await;
    let partner = app.token.clone();
    app.ask(&partner, "POST", "/v1/providers/vendor/pause", None).await.refused(403, "forbidden");
    app.operate("POST", "/v1/providers/nobody/pause").await.refused(404, "not_found");
    let paused = app.operate("POST", "/v1/providers/vendor/pause").await.expect(200).body;
    assert_eq!(paused["status"], "PAUSED");
    let id = app.one().await;
    app.advance(60);
    app.work().await;
    assert_eq!((calls.count(), app.attempts().await), (0, 0));
    let held = app.timeline(&id, "paused").await;
    assert!(held.len() == 1 && held[0].contains("still waits"), "{held:?}");
    app.operate("POST", "/v1/providers/vendor/resume").await.expect(200);
    app.work().await;
    assert_eq!(calls.count(), 1);
    assert!(app.timeline(&id, "paused").await[0].contains("the delivery waited until"));
    let deeds =
        "select count(*) from audit where action in ('provider.pause', 'provider.resume') and object = 'vendor'";
    assert_eq!(app.count(deeds).await, 2);
    app.done().await;
}
