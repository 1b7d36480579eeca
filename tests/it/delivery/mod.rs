//! Deliveries: claimed, called, settled, retried, canceled. Two workers are two hubs on one database. A lease is over
//! when the test sets it so in the table: no test waits for one.

mod call;
mod cancel;
mod claim;
mod fairness;
mod fallback;
mod lease;
mod plan;
mod protocol;
mod redrive;
mod retry;
mod schedule;
mod stall;
mod status;
mod timeline;
mod wakeup;
mod walk;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::support::app::App;

fn at(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().expect("RFC 3339")
}

/// (what, attempt) of a message's timeline.
async fn story(app: &App, id: &str) -> Vec<(String, Option<i64>)> {
    let answer = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).body;
    let items = answer["items"].as_array().unwrap().clone();
    assert!(items.is_sorted_by_key(|i| at(&i["at"])), "oldest first: {answer}");
    items.iter().map(|i| (i["what"].as_str().unwrap().to_owned(), i["attempt"].as_i64())).collect()
}

fn steps(list: &[(&str, i64)]) -> Vec<(String, Option<i64>)> {
    list.iter().map(|(what, n)| ((*what).to_owned(), Some(*n).filter(|n| *n > 0))).collect()
}
