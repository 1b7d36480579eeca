//! Calls: what each kind of answer leads to, and what a call holds while it lasts.

use std::time::Duration;

use notihub::flow::delivery::settle::settle;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::provider::simulator::Behaviour;
use notihub::store::PoolSizes;
use notihub::worker::{self, Role};
use serde_json::{Value, json};

use crate::support::app::{App, call_one, email, slack_post, slack_posts};
use crate::support::hubs::{another_with, stop, take};
use crate::support::notification::{deliveries, notification, payment_failed};
use crate::support::stub::{Gate, stub};
use crate::support::wait::until;

/// S3-12: while providers are being called, no transaction is open and no connection is in use: a hub with a single
/// connection holds fifty calls and goes on claiming.
#[tokio::test]
async fn call_in_progress_holds_no_transaction_and_no_connection() {
    let gate = Gate::new();
    let app = App::with_provider(&["--on-unknown=SLACK=hold"], gate.provider(Channel::Slack)).await;
    let narrow =
        another_with(&app, PoolSizes { api: 1, intake: 1, engine: 1, webhooks: 1 }, app.hub.clock.clone()).await;
    app.accept_all(slack_posts(50)).await;
    let look = async {
        until("all are being called", async || gate.came() == 50).await;
        let busy = "select count(*) from pg_stat_activity where datname = current_database() \
                    and application_name = 'notihub' and state <> 'idle'";
        until("no connection is in use", async || app.count(busy).await == 0).await;
        until("it is back in its pool", async || narrow.store.engine().num_idle() == 1).await;
        assert_eq!(narrow.store.engine().size(), 1);
        app.accept(email("meanwhile@example.com")).await;
        for held in take(&narrow, 10).await {
            let outcome = call_one(&narrow, held).await;
            settle(&narrow, vec![outcome]).await.unwrap();
        }
        assert_eq!(app.smtp.records().len(), 1, "the one connection served another delivery meanwhile");
        assert_eq!(app.count("select count(*) from attempt_history where outcome = 'IN_FLIGHT'").await, 50);
        gate.open();
    };
    let (claimed, ()) = tokio::join!(worker::deliver::deliver_due(&narrow), look);
    assert_eq!(claimed.unwrap(), 50);
    stop(narrow).await;
    app.done().await;
}

/// A worker whose channel is full waits; it does not turn in circles. Its runtime has one thread here, so a loop that
/// never waits would let nothing else happen before its next look, which is a minute away.
#[test]
fn worker_with_a_full_channel_waits_for_room() {
    let (done, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gate = Gate::new();
            let flags = ["--in-flight=8", "--poll-idle-ms=60000", "--poll-busy-ms=60000"];
            let app = App::with_provider(&flags, gate.provider(Channel::Slack)).await;
            app.accept_all(slack_posts(30)).await;
            worker::start(&app.hub, Role::Worker);
            until("the channel is full", async || gate.came() == 8).await;
            gate.open();
            until("all is sent", async || {
                app.count("select count(*) from deliveries where status <> 'SENT'").await == 0
            })
            .await;
            app.done().await;
        });
        done.send(()).unwrap();
    });
    let ended = heard.recv_timeout(Duration::from_secs(30));
    ended.expect("the worker turned in circles, or failed above");
}

/// S3-13: an adapter that says no for good, no for now, or nothing: each ends as its kind of answer says.
#[tokio::test]
async fn answer_of_each_kind_leads_to_its_ending() {
    let provider = stub(Channel::Slack, |letter| {
        let rejected = |class| Outcome::Rejected { class, code: "x".into(), detail: String::new(), retry_after: None };
        let outcome = match letter.content.body.as_str() {
            "yes" => Outcome::Accepted { provider_ref: Some("ref".into()) },
            "never" => rejected(ErrorClass::Content),
            "later" => rejected(ErrorClass::ProviderInternal),
            "once later" if letter.attempt > 1 => Outcome::Accepted { provider_ref: None },
            "once later" => rejected(ErrorClass::Unreachable),
            _ => Outcome::Unknown { code: "no_answer", detail: String::new() },
        };
        Box::pin(std::future::ready(outcome))
    });
    let app = App::with_provider(&[], provider).await;
    for (says, status, reason, calls) in [
        ("yes", "SENT", None, 1),
        ("never", "FAILED", Some("content_refused"), 1),
        ("later", "FAILED", Some("provider_error"), 3),
        ("once later", "SENT", None, 2),
        ("nothing", "UNDETERMINED", Some("no_answer"), 3),
    ] {
        let id = app.accept(slack_post(says)).await;
        app.settle_all().await;
        assert_eq!(app.stands(&id).await, (status.into(), reason.map(str::to_owned)), "{says}");
        assert_eq!(app.outcomes(&id).await.len(), calls, "{says}");
    }
    app.done().await;
}

/// S3-13, S3-19, S3-39: each delivery ends for itself, SUCCESS or FAILED with its reason; the whole follows from them.
#[tokio::test]
async fn delivery_ends_independently_of_the_others() {
    let app = App::with(&["--retry-schedule=EMAIL=backoff"]).await;
    let post = async |recipient: &str| {
        let mut body = payment_failed();
        body["recipient"] = json!(recipient);
        app.post("/notifications", body).await.expect(202).id()
    };
    let partial = post("bounce@example.com").await;
    app.work().await;
    let answer = notification(&app, &partial).await;
    assert_eq!(
        (deliveries(&answer), &answer["status"]),
        (vec![("EMAIL", "FAILED"), ("SLACK", "SUCCESS")], &json!("PARTIAL"))
    );
    assert_eq!(
        (&answer["deliveries"][0]["error"], &answer["deliveries"][0]["attempts"]),
        (&json!("no_such_recipient"), &json!(1))
    );
    assert_eq!(answer["deliveries"][1]["error"], Value::Null);

    let failed = post("bounce@example.com").await;
    app.slack.script(Behaviour::Fail { status: 404, text: "no_service".into() }, 1);
    app.work().await;
    let answer = notification(&app, &failed).await;
    assert_eq!(
        (deliveries(&answer), &answer["status"]),
        (vec![("EMAIL", "FAILED"), ("SLACK", "FAILED")], &json!("FAILED"))
    );

    let mixed = post("full@example.com").await;
    app.work().await;
    let answer = notification(&app, &mixed).await;
    assert_eq!(
        (deliveries(&answer), &answer["status"]),
        (vec![("EMAIL", "PENDING"), ("SLACK", "SUCCESS")], &json!("PROCESSING"))
    );
    app.settle_all().await;
    assert_eq!(notification(&app, &mixed).await["status"], "PARTIAL");
    app.done().await;
}
