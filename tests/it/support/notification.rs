//! Notifications of seed 003, and how they are read back.

use serde_json::{Value, json};

use crate::support::app::App;

/// `{type, title, message, recipient, channels}` as the seed has it.
pub fn order_completed() -> Value {
    json!({
        "type": "ORDER_COMPLETED", "title": "Order 2026-1234 completed",
        "message": "Thank you! Your order 2026-1234 is on its way.",
        "recipient": "kim@example.com", "channels": ["EMAIL"],
    })
}

pub fn payment_failed() -> Value {
    json!({
        "type": "PAYMENT_FAILED", "title": "Payment of order 2026-1235 failed",
        "message": "The card was declined. Please choose another way to pay.",
        "recipient": "lee@example.com", "channels": ["EMAIL", "SLACK"],
    })
}

/// (channel, status) of each delivery.
pub fn deliveries(notification: &Value) -> Vec<(&str, &str)> {
    let all = notification["deliveries"].as_array().expect("deliveries").iter();
    all.map(|d| (d["channel"].as_str().expect("a word"), d["status"].as_str().expect("a word"))).collect()
}

pub async fn notification(app: &App, id: &str) -> Value {
    app.get(&format!("/notifications/{id}")).await.expect(200).body
}
