//! Workers as processes: run by cron, and told to stop.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use notihub::provider::simulator::slack::SlackSimulator;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::program::{OPEN, count};
use crate::support::app::slack_post;
use crate::support::database::fresh_database;
use crate::support::process::{Folder, fsck, http_to, on, post};
use crate::support::wait::until;

/// S3-3, S3-14, S3-31: a worker run by cron delivers what is due and ends; one with a schedule of its own goes on.
#[tokio::test]
async fn worker_run_by_cron_delivers_what_is_due_and_ends() {
    let (folder, ground, url) = (Folder::new(), Shutdown::new(), fresh_database().await);
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let hook = format!("ops={}", slack.webhook_url("ops"));
    let with_slack = |args: &[&str]| on(&folder, &url, args).env("NOTIHUB_SLACK_DESTINATION", &hook);
    let mut serve = with_slack(&["serve", "--listen=127.0.0.1:0"]).start();
    let (address, http) = (serve.address().await, http_to(&url).await);
    let nothing = with_slack(&["work", "--once", "--output=json"]).run().await.expect(0);
    assert_eq!(nothing.json(), json!({"claimed": 0}));

    let messages: Vec<Value> = (0..300).map(|n| slack_post(&format!("no {n}"))).collect();
    assert_eq!(post(&http, address, "/v1/messages/batch", &json!({"messages": messages})).await.unwrap().0, 202);
    let mut later = slack_post("later");
    later["scheduledAt"] = json!("2099-01-01T00:00:00Z");
    let (status, refusal) = post(&http, address, "/v1/messages", &later).await.unwrap();
    assert_eq!(status, 422, "{refusal}");
    assert!(slack.records().is_empty(), "the API sends nothing");
    let once = with_slack(&["work", "--once", "--output=json"]).run().await.expect(0);
    assert_eq!(once.json(), json!({"claimed": 300}));
    assert_eq!(slack.records().len(), 300);
    assert_eq!(count(&url, OPEN).await, 0);

    for cron in ["* * * * * *", "*/1 * * * * *"] {
        let before = slack.records().len();
        let worker = with_slack(&["work", "--cron", cron]).start();
        for n in 1..=2 {
            assert_eq!(post(&http, address, "/v1/messages", &slack_post("x")).await.unwrap().0, 202);
            until("the next second delivers", async || slack.records().len() == before + n).await;
        }
        until("settled", async || count(&url, OPEN).await == 0).await;
        worker.stop().await.expect(0).logged_json();
    }
    let wrong = with_slack(&["work", "--cron", "every day"]).run().await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("every day") && wrong.stderr.contains("*/5 * * * *"), "{}", wrong.stderr);
    serve.stop().await.expect(0).logged_json();
    fsck(&folder, &url).await;
    ground.stop();
}

/// S3-12, S3-36: a worker that is stopped in the middle of its work ends what it began, gives back the rest, and exits
/// 0: nothing stays claimed, nothing is sent twice.
#[tokio::test]
async fn worker_told_to_stop_holds_nothing() {
    let (folder, ground, url) = (Folder::new(), Shutdown::new(), fresh_database().await);
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let hook = format!("ops={}", slack.webhook_url("ops"));
    let with_slack = |args: &[&str]| on(&folder, &url, args).env("NOTIHUB_SLACK_DESTINATION", &hook);
    let mut serve = with_slack(&["serve", "--work", "--listen=127.0.0.1:0"]).start();
    let (address, http) = (serve.address().await, http_to(&url).await);
    let messages =
        |from: usize| -> Vec<Value> { (from..from + 1000).map(|n| slack_post(&format!("no {n}"))).collect() };
    for round in 0..2 {
        let body = json!({"messages": messages(round * 1000)});
        assert_eq!(post(&http, address, "/v1/messages/batch", &body).await.unwrap().0, 202);
    }
    until("some are sent", async || slack.records().len() > 100).await;
    serve.signal(Signal::SIGTERM);
    serve.ended().await.expect(0).logged_json();
    let held = count(&url, "select count(*) from deliveries where status = 'PROCESSING'").await;
    assert_eq!(held, 0, "a delivery is held by no process");
    let taken = slack.records().len();
    assert!(taken < 2000, "it stopped too late to show anything");
    assert_eq!(
        count(&url, "select count(*) from deliveries where status = 'SENT'").await,
        taken as i64,
        "all that was taken is known"
    );
    assert_eq!(count(&url, "select count(*) from workers").await, 0, "it signed off");

    with_slack(&["work", "--once"]).run().await.expect(0);
    let texts: BTreeSet<_> = slack.records().into_iter().map(|post| post.text).collect();
    assert_eq!((texts.len(), slack.records().len()), (2000, 2000), "each once");
    assert_eq!(count(&url, "select count(*) from attempt_history where outcome = 'UNKNOWN'").await, 0);
    fsck(&folder, &url).await;
    ground.stop();
}
