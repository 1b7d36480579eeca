//! The events of a message, live.

use notihub::flow::watch::{WatchPosition, send_news};
use serde_json::json;

use crate::inbox::Live;
use crate::support::app::{App, email, named};

/// A partner watches a message: its events so far, then each as it happens, each once, with the body of its webhook,
/// until the message is complete. A client that was away gets what came after; another partner finds nothing.
#[tokio::test]
async fn message_events_come_as_they_happen_and_end_with_the_message() {
    let app = App::new().await;
    let mut message = email("kim@example.com");
    message["clientMsgId"] = json!("m-1");
    let id = app.post("/v1/messages", message).await.expect(202).id();
    let path = format!("/v1/messages/{id}/events");
    let open = async |last: Option<&str>| {
        let request = app.http.get(app.uri(&path)).bearer_auth(app.fresh_token().await);
        Live::open(last.into_iter().fold(request, |request, last| request.header("last-event-id", last))).await
    };
    let mut live = open(None).await;
    let accepted = live.expect("message.accepted").await;
    assert_eq!(accepted.id.as_deref(), Some("0-1"));
    let mut position = WatchPosition::default();
    send_news(&app.hub, &mut position).await.unwrap();
    app.work().await;
    for _again in 0..2 {
        send_news(&app.hub, &mut position).await.unwrap();
    }
    let sent = live.expect("delivery.sent").await;
    assert_eq!(sent.id.as_deref(), Some("1-1"));
    let body =
        ["eventId", "status", "clientMsgId", "channel", "attempt", "provider"].map(|name| sent.data[name].clone());
    assert_eq!(json!(body), json!([format!("{id}-1-1"), "SENT", "m-1", "EMAIL", 1, "smtp"]));
    assert_eq!(live.expect("message.completed").await.data["status"], "COMPLETED");
    assert_eq!(live.next().await, None);

    let mut whole = open(None).await;
    for name in ["message.accepted", "delivery.sent", "message.completed"] {
        whole.expect(name).await;
    }
    let mut after = open(Some("1-1")).await;
    let mut rest = Vec::new();
    while let Some(event) = after.next().await {
        rest.push(event.name);
    }
    assert_eq!(rest.last().map(String::as_str), Some("message.completed"));
    assert!(!rest.contains(&"delivery.sent".to_owned()));
    let (_, _, other) = app.partner(named("other")).await;
    app.ask(&other, "GET", &path, None).await.expect(404);
    app.done().await;
}
