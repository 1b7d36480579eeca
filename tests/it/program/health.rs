//! Health: liveness, readiness, metrics and version, and what a hub that stops answers.

use notihub::worker::{self, Role};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::app::{App, email};
use crate::support::wire::{PATIENCE, Wire, post, request};

/// S3-28: the routes for machines that watch: alive, ready or what is missing, counts, and the versions of the program
/// and of PostgreSQL.
#[tokio::test]
async fn health_routes_tell_alive_ready_counts_and_version() {
    let app = App::new().await;
    assert_eq!(app.get("/healthz").await.expect(200).body, json!({"code": "0000", "status": "alive"}));

    let unready = app.get("/readyz").await.expect(200).body;
    assert_eq!(
        (&unready["code"], &unready["ready"], &unready["stopping"]),
        (&json!("0000"), &json!(true), &json!(false)),
        "messages are accepted also while nothing delivers"
    );
    let checks = |body: &Value| -> Vec<(String, bool)> {
        let one = |c: &Value| (c["check"].as_str().unwrap().to_owned(), c["ok"].as_bool().unwrap());
        body["checks"].as_array().unwrap().iter().map(one).collect()
    };
    let expected = |worker| {
        [("database", true), ("migrations", true), ("partitions", true), ("worker", worker)]
            .map(|c| (c.0.to_owned(), c.1))
    };
    assert_eq!(checks(&unready), expected(false), "nothing delivers");
    worker::start(&app.hub, Role::Worker);
    // The first heartbeat is on its way; asking is the only wait.
    let ready = timeout(PATIENCE, async {
        loop {
            let answer = app.get("/readyz").await;
            if checks(&answer.body) == expected(true) {
                return answer.body;
            }
        }
    });
    let ready = ready.await.expect("a worker that lives");
    assert_eq!((&ready["code"], &ready["ready"]), (&json!("0000"), &json!(true)));
    assert_eq!(checks(&ready), expected(true));

    let about = app.get("/about").await.expect(200).body;
    assert_eq!((&about["name"], &about["version"]), (&json!("notihub"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!((&about["migrationsMissing"], &about["channels"]), (&json!(0), &json!(["EMAIL", "SLACK", "INAPP"])));
    let mut settings: Vec<&String> = about["database"].as_object().unwrap().keys().collect();
    settings.sort();
    assert_eq!(settings, ["fsync", "full_page_writes", "server_version", "synchronous_commit"]);

    let metrics = app.metrics().await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE notihub_http_requests_total counter",
        "# TYPE notihub_http_request_seconds histogram",
        "notihub_http_requests_total{route=\"/healthz\",status=\"200\"} 1",
        "notihub_db_rejected_input_total 0",
    ] {
        assert!(metrics.text.lines().any(|l| l == line), "{line} is not in\n{}", metrics.text);
    }
    app.hub.shutdown.stop();
    app.done().await;
}

/// A body that never comes does not keep a process from stopping in time.
#[tokio::test]
async fn stop_does_not_wait_for_a_body_that_never_comes() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    let whole = post(&email("kim@example.com"));
    let (first, _never) = whole.split_at(whole.len() - 5);
    wire.send(first).await;
    app.get("/healthz").await.expect(200);
    app.hub.shutdown.stop();
    assert_eq!(wire.reply().await.map_or(503, |r| r.status), 503);
    app.done().await;
}

/// A hub that stops is not ready, so that balancers send it no requests, and answers those it began.
#[tokio::test]
async fn hub_that_stops_is_unready_and_answers_what_it_began() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    let whole = post(&email("kim@example.com"));
    let (first, rest) = whole.split_at(whole.len() - 5);
    wire.send(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(wire.reply().await.unwrap().status, 200);
    wire.send(first).await;
    // The request has begun for certain once another connection, opened later, was served.
    app.get("/healthz").await.expect(200);
    app.hub.shutdown.stop();
    wire.send(rest).await;
    let reply = wire.reply().await;
    let stored = app.count("select count(*) from messages").await;
    assert_eq!(reply.map(|r| r.status == 202), Some(stored == 1), "an answer says what was done");
    assert!(wire.ends().await);
    app.done().await;
}
