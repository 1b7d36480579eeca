//! The timeline of a message: all that happened to it, and why.

use notihub::provider::simulator::Behaviour;
use serde_json::Value;

use crate::delivery::{steps, story};
use crate::support::app::{App, slack_post};
use crate::support::message::{fail, post};

/// S3-4, S3-7: the timeline tells everything that happened and why, oldest first.
#[tokio::test]
async fn timeline_of_a_message_has_every_step_in_order() {
    let app = App::new().await;
    app.slack.script(fail(503, "service_unavailable"), 1);
    app.slack.script(Behaviour::Cut, 1);
    let id = post(&app, slack_post("x")).await;
    app.settle_all().await;
    let round = |n| [("claimed", n), ("called", n), ("answered", n)];
    let mut expected = vec![("accepted", 0)];
    for n in 1..=3 {
        expected.extend(round(n));
        expected.push(if n < 3 { ("retry", n) } else { ("event", n) });
    }
    assert_eq!(story(&app, &id).await, steps(&expected));
    let answer = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).body;
    let texts: Vec<&str> = answer["items"].as_array().unwrap().iter().map(|i| i["detail"].as_str().unwrap()).collect();
    assert_eq!(texts[0], "TEST with 1 delivery, NORMAL");
    assert_eq!(texts[2], "provider slack");
    assert_eq!(texts[3], "REJECTED: service_unavailable · answered 503");
    assert!(
        texts[4].starts_with("not before 2027-03-05T00:30:0") && texts[4].ends_with(" (provider_error)"),
        "{}",
        texts[4]
    );
    assert!(texts[7].starts_with("UNKNOWN: "), "{}", texts[7]);
    assert_eq!((texts[11], texts[12]), ("ACCEPTED", "delivery.sent"));
    assert_eq!(answer["items"][1]["deliveryId"], format!("{id}-1"));
    assert_eq!(answer["items"][0]["deliveryId"], Value::Null);
    app.done().await;
}
