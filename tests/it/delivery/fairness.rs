//! Fairness: unfinished deliveries beyond a partner's share wait in overflow lanes.

use std::sync::Arc;

use notihub::model::channel::Channel;
use notihub::store;
use notihub::worker::{self, Role};
use serde_json::json;

use crate::support::app::{App, email, emails, slack_post, slack_posts};
use crate::support::hubs::{another, stop};
use crate::support::stub::Gate;
use crate::support::wait::until;

const IN_OVERFLOW: &str = "select count(*) from deliveries where lane % 2 = 1";

/// Unfinished deliveries beyond a partner's share wait in overflow lanes, single messages and batches alike; they are
/// delivered all the same; and once the work is done, new messages are prompt again.
#[tokio::test]
async fn deliveries_beyond_the_fair_share_wait_in_overflow() {
    let app = App::with(&["--fair-unfinished=50"]).await;
    app.accept_all(emails(60)).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 10);
    app.accept(email("one.more@example.com")).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 11);
    app.accept(slack_post("another channel has a share of its own")).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 11);
    app.settle_all().await;
    assert_eq!(app.smtp.records().len(), 61);

    app.advance(1);
    worker::start(&app.hub, Role::Api);
    until("it is seen that nothing waits", async || app.hub.fairness().lanes_to_check().is_empty()).await;
    app.accept_all(emails(50)).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 11);
    app.settle_all().await;
    app.done().await;
}

/// Processes tell each other whom they accept much from.
#[tokio::test]
async fn fair_share_is_counted_over_all_processes() {
    let app = App::with(&["--fair-unfinished=50"]).await;
    let other = another(&app).await;
    for hub in [&app.hub, &other] {
        worker::start(hub, Role::Api);
    }
    let listen = "select count(*) from pg_stat_activity where datname = current_database() \
                  and query like 'LISTEN%shares%' and state = 'idle'";
    until("both listen", async || app.count(listen).await == 2).await;
    app.accept_all(emails(50)).await;
    until("the other knows", async || !other.fairness().lanes_to_check().is_empty()).await;
    stop(other).await;
    app.settle_all().await;
    app.done().await;
}

/// A flood on a slow provider leaves room for other partners, and goes on where there is no other.
#[tokio::test]
async fn flood_of_one_partner_leaves_room_for_others() {
    let gate = Gate::new();
    let flags = ["--fair-unfinished=2", "--in-flight=16"];
    let app = App::with_provider(&flags, gate.provider(Channel::Slack)).await;
    worker::start(&app.hub, Role::Both);
    app.accept_all(slack_posts(30)).await;
    until("the flood has what it may have", async || gate.came() == 14).await;
    // Its first ones are held and wait no more; what it posts further overflows all the same.
    app.advance(1);
    app.accept_all(slack_posts(10)).await;
    assert_eq!(app.count(IN_OVERFLOW).await, 38);
    let small = Arc::new(notihub::model::partner::Partner::new(app.hub.next_id(), "small".into(), 3));
    store::partner::insert(app.hub.store.api(), &small, app.hub.clock.now()).await.unwrap();
    let body = slack_post("from somebody else").to_string();
    let message = notihub::model::intake::message(body.as_bytes(), &app.hub.intake_policy(&small)).unwrap();
    notihub::flow::intake::accept::accept(&app.hub, &small, message).await.unwrap();
    until("the other one's goes out", async || gate.came() == 15).await;
    let theirs = "select count(*) from deliveries join partners using (partner_id) \
                  where name = 'small' and deliveries.status = 'PROCESSING'";
    assert_eq!(app.count(theirs).await, 1);
    gate.open();
    until("all is sent", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    app.done().await;
}

/// Urgent goes before normal, and normal before bulk, in whatever order they came.
#[tokio::test]
async fn urgent_message_goes_before_normal_and_bulk() {
    let app = App::with(&["--claim-batch=1", "--in-flight=1"]).await;
    for (n, priority) in ["BULK", "NORMAL", "URGENT", "BULK", "URGENT"].into_iter().enumerate() {
        let mut body = slack_post(&format!("{priority} {n}"));
        body["priority"] = json!(priority);
        app.post("/v1/messages", body).await.expect(202);
    }
    app.work().await;
    let texts: Vec<String> = app.slack.records().into_iter().filter_map(|p| p.text).collect();
    assert_eq!(texts, ["URGENT 2", "URGENT 4", "NORMAL 1", "BULK 0", "BULK 3"]);
    app.done().await;
}
