//! Notifications: seed 003's words over the same flow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use notihub::clock::Clock;
use notihub::config::{self, Settings};
use notihub::hub::Parts;
use notihub::model::channel::Channel;
use notihub::provider::mock::Mock;
use notihub::provider::simulator::Behaviour;
use notihub::shutdown::Shutdown;
use notihub::{api, http};
use serde_json::{Value, json};

use crate::support::app::{App, MASTER_KEY, settings};
use crate::support::database::store;
use crate::support::notification::{deliveries, notification, order_completed, payment_failed};

fn system_outage() -> Value {
    json!({
        "type": "SYSTEM_OUTAGE", "title": "checkout is down", "message": "3 of 3 probes failed since 09:41.",
        "channels": ["SLACK"],
    })
}

/// S3-1, S3-2, S3-5, S3-22, S3-37, S3-40: an order was completed, and the customer has the mail: one, and nothing else.
#[tokio::test]
async fn notification_order_completed_mails_the_customer() {
    let app = App::new().await;
    let posted = app.post("/notifications", order_completed()).await.expect(202);
    assert_eq!(deliveries(&posted.body), [("EMAIL", "PENDING")]);
    assert_eq!((&posted.body["code"], &posted.body["status"]), (&json!("0000"), &json!("PENDING")));
    app.work().await;

    let mails = app.smtp.records();
    assert_eq!(mails.len(), 1);
    assert_eq!(
        (mails[0].to.as_slice(), mails[0].from.as_str()),
        (&["kim@example.com".to_owned()][..], "hub@example.com")
    );
    assert!(mails[0].data.contains("Subject: Order 2026-1234 completed\r\n"), "{}", mails[0].data);
    assert!(mails[0].data.contains("Thank you! Your order 2026-1234 is on its way."), "{}", mails[0].data);
    assert!(app.slack.records().is_empty());
    let answer = notification(&app, &posted.id()).await;
    assert_eq!((deliveries(&answer), &answer["status"]), (vec![("EMAIL", "SUCCESS")], &json!("COMPLETED")));
    app.done().await;
}

/// S3-1, S3-2, S3-6, S3-15, S3-40: a payment failed: the customer has the mail, and operations the Slack post.
#[tokio::test]
async fn notification_payment_failed_goes_to_mail_and_slack() {
    let app = App::new().await;
    let posted = app.post("/notifications", payment_failed()).await.expect(202);
    assert_eq!(deliveries(&posted.body), [("EMAIL", "PENDING"), ("SLACK", "PENDING")]);
    app.work().await;

    let (mails, posts) = (app.smtp.records(), app.slack.records());
    assert_eq!((mails.len(), posts.len()), (1, 1));
    assert_eq!(mails[0].to, ["lee@example.com"]);
    assert!(mails[0].data.contains("Subject: Payment of order 2026-1235 failed\r\n"), "{}", mails[0].data);
    assert_eq!(posts[0].hook, "ops", "the operators' channel, named in the settings");
    let text = "*Payment of order 2026-1235 failed*\nThe card was declined. Please choose another way to pay.";
    assert_eq!(posts[0].text.as_deref(), Some(text));
    let answer = notification(&app, &posted.id()).await;
    assert_eq!(
        (deliveries(&answer), &answer["status"]),
        (vec![("EMAIL", "SUCCESS"), ("SLACK", "SUCCESS")], &json!("COMPLETED"))
    );
    app.done().await;
}

/// S3-1, S3-7, S3-15, S3-40: a system is down: operations sees it in Slack without a named recipient, and opens the
/// detail by the API.
#[tokio::test]
async fn notification_of_an_outage_goes_to_slack_with_detail_in_the_api() {
    let app = App::new().await;
    let posted = app.post("/notifications", system_outage()).await.expect(202);
    app.work().await;

    assert!(app.smtp.records().is_empty());
    let posts = app.slack.records();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].text.as_deref(), Some("*checkout is down*\n3 of 3 probes failed since 09:41."));
    let answer = notification(&app, &posted.id()).await;
    assert_eq!(
        answer,
        json!({
            "code": "0000", "id": posted.id(), "type": "SYSTEM_OUTAGE", "title": "checkout is down",
            "message": "3 of 3 probes failed since 09:41.", "status": "COMPLETED", "possiblySent": false,
            "createdAt": "2027-03-05T00:30:00.000000Z",
            "deliveries": [{"channel": "SLACK", "recipient": "ops", "status": "SUCCESS", "attempts": 1, "error": null,
                "possiblySent": false,
                "settledAt": "2027-03-05T00:30:00.000000Z"}],
        })
    );
    app.done().await;
}

/// S3-42: plain text, or Block Kit as the caller made it: both pass, the text beside the blocks for where they do not
/// show.
#[tokio::test]
async fn notification_to_slack_has_text_or_blocks() {
    let app = App::new().await;
    let blocks =
        json!([{"type": "section", "text": {"type": "mrkdwn", "text": "*down* <https://status.example.com|status>"}}]);
    let full = json!({"type": "A", "body": "plain", "channels": [{"channel": "SLACK", "to": "dev", "blocks": blocks}]});
    app.post("/notifications", full).await.expect(202);
    app.post("/notifications", json!({"type": "A", "message": "just text", "channels": ["SLACK"]})).await.expect(202);
    app.work().await;
    let mut posts = app.slack.records();
    posts.sort_by(|a, b| a.hook.cmp(&b.hook));
    assert_eq!(
        (posts[0].hook.as_str(), posts[0].text.as_deref(), &posts[0].blocks),
        ("dev", Some("plain"), &Some(blocks))
    );
    assert_eq!((posts[1].hook.as_str(), posts[1].text.as_deref(), &posts[1].blocks), ("ops", Some("just text"), &None));
    app.done().await;
}

/// S3-8, S3-9: the notification and one delivery for each channel are there together, PENDING, or not at all.
#[tokio::test]
async fn notification_and_its_deliveries_are_one_transaction() {
    let app = App::new().await;
    let db = app.db().await;
    let mut body = payment_failed();
    body["clientMsgId"] = json!("once");
    // The last row of the message cannot be written.
    let poison = "alter table deliveries add constraint ck_poison check (recipient <> 'ops')";
    sqlx::query(poison).execute(&db).await.unwrap();
    let refused = app.post("/notifications", body.clone()).await.refused(500, "system_error");
    assert_eq!(refused.body["code"], "E100");
    for table in ["messages", "deliveries", "idempotency"] {
        let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        let rows: i64 = sqlx::query_scalar(count).fetch_one(&db).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    sqlx::query("alter table deliveries drop constraint ck_poison").execute(&db).await.unwrap();
    let id = app.post("/notifications", body).await.expect(202).id();
    assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING' and attempt = 0").await, 2);
    assert_eq!(deliveries(&notification(&app, &id).await), [("EMAIL", "PENDING"), ("SLACK", "PENDING")]);
    app.done().await;
}

/// S3-10: there are EMAIL and SLACK; any other channel is refused by name.
#[tokio::test]
async fn notification_over_another_channel_is_refused() {
    let app = App::new().await;
    for channel in ["SMS", "PUSH", "WEBPUSH", "email"] {
        let mut body = order_completed();
        body["channels"] = json!(["EMAIL", channel]);
        let refused = app.post("/notifications", body).await.refused(400, "enum");
        assert_eq!(
            (&refused.body["code"], &refused.body["errors"][0]["pointer"]),
            (&json!("E005"), &json!("/channels/1"))
        );
    }
    let sms = json!({"type": "A", "body": "b", "channels": [{"channel": "SMS", "to": "010-1234-5678"}]});
    assert_eq!(app.post("/v1/messages", sms).await.refused(400, "channel_unavailable").body["code"], "E005");
    assert_eq!(app.count("select count(*) from messages").await, 0);
    app.done().await;
}

/// S3-9: a channel that is named twice is one delivery.
#[tokio::test]
async fn notification_with_a_channel_twice_has_one_delivery() {
    let app = App::new().await;
    let mut body = payment_failed();
    body["channels"] = json!(["EMAIL", "SLACK", "EMAIL", "SLACK"]);
    let posted = app.post("/notifications", body).await.expect(202);
    assert_eq!(deliveries(&posted.body), [("EMAIL", "PENDING"), ("SLACK", "PENDING")]);
    app.work().await;
    assert_eq!((app.smtp.records().len(), app.slack.records().len()), (1, 1));
    app.done().await;
}

/// S3-16: the e-mail provider may be the mock: it logs the mail, success and failure are recorded as for any other, and
/// nothing leaves over SMTP.
#[tokio::test]
async fn notification_over_the_mock_records_success_and_failure() {
    let app = App::with_provider(&["--retry-schedule=EMAIL=backoff"], Arc::new(Mock::new(vec![Channel::Email]))).await;
    let to = async |recipient: &str| {
        let mut body = order_completed();
        body["recipient"] = json!(recipient);
        app.post("/notifications", body).await.expect(202).id()
    };
    let (good, bad, later) =
        (to("kim@example.com").await, to("fail@example.com").await, to("temporary@example.com").await);
    app.settle_all().await;
    let attempts = async |id: &str| app.message(id).await["deliveries"][0]["attempts"].clone();
    let good = attempts(&good).await;
    assert_eq!((&good[0]["outcome"], &good[0]["provider"]), (&json!("ACCEPTED"), &json!("mock")));
    assert!(good[0]["providerRef"].as_str().unwrap().starts_with("mock-"));
    let refused = attempts(&bad).await;
    assert_eq!(
        (refused.as_array().unwrap().len(), &refused[0]["outcome"], &refused[0]["errorCode"]),
        (1, &json!("REJECTED"), &json!("mock_refused"))
    );
    assert_eq!(deliveries(&notification(&app, &bad).await), [("EMAIL", "FAILED")]);
    let spent = attempts(&later).await;
    assert_eq!((spent.as_array().unwrap().len(), &spent[2]["errorCode"]), (3, &json!("mock_unavailable")));
    assert!(app.smtp.records().is_empty());
    app.done().await;
}

/// S3-4, S3-17, S3-18, S3-27, S3-39: all notifications can be asked for, one with its results or many at a time.
#[tokio::test]
async fn notifications_are_looked_up_and_listed() {
    let app = App::new().await;
    let order = app.post("/notifications", order_completed()).await.expect(202);
    assert_eq!(order.header("location"), format!("/notifications/{}", order.id()));
    app.advance(1);
    let payment = app.post("/notifications", payment_failed()).await.expect(202).id();
    app.work().await;
    app.advance(1);
    let outage = app.post("/notifications", system_outage()).await.expect(202).id();

    let list = app.get("/notifications").await.expect(200).body;
    assert_eq!(list["nextCursor"], Value::Null);
    assert_eq!(
        list["items"][0],
        json!({
            "id": outage, "type": "SYSTEM_OUTAGE", "title": "checkout is down", "status": "PENDING",
            "createdAt": "2027-03-05T00:30:02.000000Z", "deliveries": [{"channel": "SLACK", "status": "PENDING"}],
        })
    );
    let ids = async |query: &str| -> Vec<String> {
        let list = app.get(&format!("/notifications{query}")).await.expect(200).body;
        list["items"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").await, [outage.clone(), payment.clone(), order.id()], "newest first");
    assert_eq!(ids("?status=COMPLETED").await, [payment.clone(), order.id()]);
    assert_eq!(ids("?channel=SLACK").await, [outage.clone(), payment.clone()]);
    assert_eq!(ids("?type=PAYMENT_FAILED&recipient=lee@example.com").await, std::slice::from_ref(&payment));
    assert_eq!(ids("?recipient=lee@example.com").await, std::slice::from_ref(&payment));
    assert_eq!(ids("?until=2027-03-05T00:30:01Z").await, [order.id()]);
    let first = app.get("/notifications?limit=2").await.expect(200).body;
    let cursor = first["nextCursor"].as_str().unwrap();
    assert_eq!(ids(&format!("?limit=2&cursor={cursor}")).await, [order.id()]);

    app.get("/notifications/0000000000000").await.refused(404, "not_found");
    assert_eq!(app.message(&payment).await["messageId"], payment, "the same message under either name");
    app.done().await;
}

/// S3-4, S3-30, S3-39: notifications and their results outlive the process: another one answers the same.
#[tokio::test]
async fn notification_outlives_the_process() {
    let app = App::new().await;
    let id = app.post("/notifications", payment_failed()).await.expect(202).id();
    let waits = app.post("/notifications", order_completed()).await.expect(202).id();
    app.slack.script(Behaviour::Fail { status: 503, text: "service_unavailable".into() }, 1);
    app.work().await;
    let shutdown = Shutdown::new();
    let other = notihub::flow::start(Parts {
        settings: settings(&[]),
        store: store(&app.url),
        providers: app.hub.providers.clone(),
        clock: Clock::manual(app.hub.clock.now()),
        shutdown: shutdown.clone(),
        master_keys: vec![MASTER_KEY],
    });
    let other = other.await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    http::server::start(listener, api::router(&other), &shutdown);
    let http = reqwest::Client::new();
    let there = |path: &str| http.get(format!("http://{address}{path}")).bearer_auth(&app.token).send();
    for path in [
        format!("/notifications/{id}"),
        format!("/notifications/{waits}"),
        format!("/v1/messages/{id}"),
        format!("/v1/messages/{id}/timeline"),
        "/notifications".to_owned(),
        "/v1/deliveries".to_owned(),
    ] {
        let there: Value = serde_json::from_str(&there(&path).await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(there, app.get(&path).await.expect(200).body, "{path}");
    }
    shutdown.stop();
    assert!(shutdown.drained(Duration::from_secs(20)).await);
    other.store.close().await;
    app.done().await;
}

/// A template is refused by name; HTML that the caller made itself is sent as it is.
#[tokio::test]
async fn notification_with_a_template_is_refused_and_html_is_sent() {
    let app = App::new().await;
    let mut body = json!({"type": "A", "title": "t", "body": "text", "template": "order-completed",
        "variables": {"a": 1},
        "channels": [{"channel": "EMAIL", "to": "kim@example.com", "html": "<p>kept</p>"}]});
    let refused = app.post("/notifications", body.clone()).await.refused(422, "not_supported");
    assert_eq!(refused.body["errors"][0]["pointer"], "/template");
    body.as_object_mut().unwrap().retain(|name, _| name != "template" && name != "variables");
    app.post("/notifications", body).await.expect(202);
    app.work().await;
    assert!(app.smtp.records()[0].data.contains("<p>kept</p>"));
    app.done().await;
}

/// S3-38: how long creating takes is counted at the door, call by call, so that its average is there to be read.
#[tokio::test]
async fn notification_creation_time_is_measured() {
    let app = App::new().await;
    for _ in 0..5 {
        app.post("/notifications", order_completed()).await.expect(202);
    }
    let metrics = app.metrics().await.text;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} is not counted"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("notihub_http_request_seconds_count{route=\"/notifications\"}"), 5.0);
    assert!(value("notihub_http_request_seconds_sum{route=\"/notifications\"}") > 0.0);
    assert_eq!(value("notihub_http_requests_total{route=\"/notifications\",status=\"202\"}"), 5.0);
    app.done().await;
}

/// S3-32, S3-33, S3-43: what differs between environments is a setting: as a flag, as an environment variable and as a
/// line of the settings file; Slack's webhook among them, by a name, which is all that a caller may say.
#[tokio::test]
async fn environment_differences_are_settings() {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("test"));
    let mut seen = BTreeSet::new();
    for arg in command.get_arguments() {
        let long = arg.get_long().unwrap_or_else(|| panic!("{} is not a flag", arg.get_id()));
        let env = arg.get_env().unwrap_or_else(|| panic!("--{long} cannot come from the environment"));
        let usual = format!("NOTIHUB_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(env.to_str(), Some(usual.as_str()), "--{long}");
        seen.insert(long.to_owned());
    }
    for name in ["database-url", "listen", "slack-destination", "slack-default", "smtp-host", "smtp-password", "email"]
    {
        assert!(seen.contains(name), "{name} is not a setting");
    }
    let file = std::env::temp_dir().join(format!("notihub-{}.toml", std::process::id()));
    std::fs::write(
        &file,
        "slack-destination = ['ops=https://hooks.slack.com/services/T0/B0/x']\nretry-max-attempts = 5\n",
    )
    .unwrap();
    let read = config::read_file(Some(&file)).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(read["slack-destination"].values, ["ops=https://hooks.slack.com/services/T0/B0/x"]);
    assert_eq!(read["retry-max-attempts"].values, ["5"]);

    let app = App::new().await;
    let url = json!({"type": "A", "body": "b", "channels": [{"channel": "SLACK", "to": app.slack.webhook_url("ops")}]});
    app.post("/notifications", url).await.refused(422, "destination_unknown");
    app.done().await;
}

/// S3-15, S3-32: where Slack posts go without a name: to `ops`, to the only one there is, or where the settings say.
#[tokio::test]
async fn notification_to_slack_without_a_name_goes_to_the_default() {
    let app = App::with(&["--slack-default=dev"]).await;
    app.post("/notifications", system_outage()).await.expect(202);
    app.work().await;
    assert_eq!(app.slack.records()[0].hook, "dev");
    app.done().await;
    let named = |flags: &[&str]| settings(flags).slack.default_name();
    assert_eq!(named(&[]), None);
    assert_eq!(named(&["--slack-destination=one=https://x"]).as_deref(), Some("one"));
    assert_eq!(named(&["--slack-destination=a=https://x,ops=https://y"]).as_deref(), Some("ops"));
    assert_eq!(named(&["--slack-destination=a=https://x,b=https://y"]), None, "which of the two?");
}
