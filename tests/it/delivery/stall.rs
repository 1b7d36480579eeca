//! The database stalls: callers get 503, loops go on, and an answer is kept until it can be written.

use notihub::hub::Parts;
use notihub::model::channel::Channel;
use notihub::shutdown::Shutdown;
use notihub::store::PoolSizes;
use notihub::worker::{self, Role};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::support::app::{App, MASTER_KEY, slack_post};
use crate::support::hubs::stop;
use crate::support::stub::Gate;
use crate::support::wait::until;

/// A table that is locked for long stops no loop for good: callers are answered 503, and loops go on when it is free.
#[tokio::test]
async fn locked_table_is_waited_for_briefly_and_survived() {
    let app = App::with(&["--poll-idle-ms=20", "--poll-busy-ms=20", "--reap-every-ms=100"]).await;
    app.accept(slack_post("before")).await;
    let mut locker = PgConnection::connect(&app.url).await.unwrap();
    sqlx::raw_sql("begin; lock table deliveries in share row exclusive mode").execute(&mut locker).await.unwrap();
    worker::start(&app.hub, Role::Worker);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
                 and query like '-- Claim%'";
    until("the claim waits", async || app.count(waits).await >= 1).await;
    app.post("/v1/messages", slack_post("meanwhile")).await.refused(503, "database_unavailable");
    let answer = app.post("/notifications", json!({"type": "T", "message": "m", "channels": ["SLACK"]})).await;
    assert_eq!(answer.refused(503, "database_unavailable").body["code"], "E102");
    assert!(app.slack.records().is_empty());
    sqlx::raw_sql("rollback").execute(&mut locker).await.unwrap();
    app.accept(slack_post("after")).await;
    until("all is sent", async || app.count("select count(*) from deliveries where status = 'SENT'").await == 2).await;
    app.done().await;
}

/// What a provider answered is kept in mind until it can be written, however long that takes: else what was taken would
/// be sent again.
#[tokio::test]
async fn answer_during_a_lock_is_written_after_it() {
    let gate = Gate::new();
    let app = App::with_provider(&["--reap-every-ms=600000"], gate.provider(Channel::Slack)).await;
    let id = app.accept(slack_post("x")).await;
    let mut settings = app.hub.settings.clone();
    // Shorter than any statement may wait for a lock.
    let timing = &mut settings.timing;
    (timing.call_budget_ms, timing.settle_budget_ms, timing.lease_margin_ms, timing.lease_ms) = (1000, 10, 10, 1500);
    let hasty = notihub::flow::start(Parts {
        settings,
        store: crate::support::database::store_of(&app.url, PoolSizes { api: 2, intake: 2, engine: 4, webhooks: 4 }),
        providers: app.hub.providers.clone(),
        clock: app.hub.clock.clone(),
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap();
    worker::start(&hasty, Role::Worker);
    until("it is called", async || gate.came() == 1).await;
    let mut locker = PgConnection::connect(&app.url).await.unwrap();
    sqlx::raw_sql("begin; lock table deliveries in share row exclusive mode").execute(&mut locker).await.unwrap();
    gate.open();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
                 and query like '-- Writes sends, fenced%'";
    until("the settle waits", async || app.count(waits).await == 1).await;
    until("its patience is over", async || app.count(waits).await == 0).await;
    sqlx::raw_sql("rollback").execute(&mut locker).await.unwrap();
    until("it is written", async || app.stands(&id).await.0 == "SENT").await;
    assert_eq!((gate.came(), app.outcomes(&id).await), (1, vec!["ACCEPTED".to_owned()]));
    stop(hasty).await;
    app.done().await;
}
