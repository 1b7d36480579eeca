//! Messages: accepted, delivered, looked at.

use serde_json::json;

use crate::support::{App, email};

/// S3-2, S3-3, S3-8, S3-9, S3-37: a message is stored with its deliveries PENDING, and only a worker sends it.
#[tokio::test]
async fn a_message_is_stored_at_once_and_sent_by_a_worker() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["channels"] = json!([{"channel": "EMAIL", "to": "kim@example.com"}, {"channel": "SLACK", "to": "ops"}]);
    let accepted = app.post("/v1/messages", body).await.expect(202);
    assert_eq!(accepted.body["code"], "0000");
    let id = accepted.id();
    assert_eq!(accepted.header("location"), format!("/v1/messages/{id}"));
    let statuses: Vec<_> =
        accepted.body["deliveries"].as_array().unwrap().iter().map(|d| d["status"].clone()).collect();
    assert_eq!(statuses, ["PENDING", "PENDING"]);
    assert_eq!(app.message(&id).await["status"], "PENDING");
    assert!(app.smtp.records().is_empty(), "nothing is sent by the API");

    app.work().await;

    let message = app.message(&id).await;
    assert_eq!(message["status"], "COMPLETED");
    assert_eq!(message["deliveries"][0]["status"], "SENT");
    assert_eq!(message["deliveries"][0]["attempts"][0]["outcome"], "ACCEPTED");
    let mails = app.smtp.records();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["kim@example.com"]);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}
