//! Wake-ups: a worker polls without any hint, and a hint of another process wakes it.

use notihub::worker::{self, Role};

use crate::support::app::{App, slack_post};
use crate::support::hubs::{another, stop};
use crate::support::wait::until;

/// S3-14, S3-31, S3-41: the worker gets no hint, and it delivers: it looks by itself, as often as is set.
#[tokio::test]
async fn poll_without_any_hint_delivers() {
    let app = App::with(&["--poll-idle-ms=20", "--poll-busy-ms=20"]).await;
    let other = another(&app).await;
    worker::start(&other, Role::Worker);
    for n in 1..=3 {
        app.accept(slack_post(&format!("no {n}"))).await;
        until("delivered", async || app.slack.records().len() == n).await;
    }
    assert_eq!(app.hub.wake.take_for_others().places.len(), 1, "the hint lies here, untold");
    until("settled", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    stop(other).await;
    app.done().await;
}

/// A hint from another process wakes a worker whose next look is a minute away; so does the loss of hints.
#[tokio::test]
async fn hint_of_another_process_wakes_a_worker() {
    let app = App::with(&["--poll-idle-ms=60000", "--poll-busy-ms=60000"]).await;
    let other = another(&app).await;
    worker::start(&app.hub, Role::Api);
    worker::start(&other, Role::Worker);
    let listens = "select count(*) from pg_stat_activity where datname = current_database() \
                   and query like 'LISTEN%ready%' and state = 'idle'";
    until("it listens", async || app.count(listens).await == 1).await;
    until("it looked and found nothing", async || {
        other.metrics.claim_seconds.with_label_values::<&str>(&[]).get_sample_count() > 0
    })
    .await;
    app.accept(slack_post("told")).await;
    until("delivered", async || app.slack.records().len() == 1).await;

    // A hint is missed while the connection that listens is cut; a worker that listens again looks everywhere.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
               and query like 'LISTEN%ready%'";
    assert_eq!(app.count(cut).await, 1);
    app.accept(slack_post("missed")).await;
    until("delivered", async || app.slack.records().len() == 2).await;
    until("settled", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    stop(other).await;
    app.done().await;
}
