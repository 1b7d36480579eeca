//! Rooms: users of a partner make them, come and go, and write.

mod client;
mod connection;
mod isolation;
mod law;
mod member;
mod message;
mod page;
mod plan;
mod stomp;
mod stream;

use serde_json::{Value, json};

use crate::support::app::{Answer, App};
use crate::user::on_behalf;

/// With a request on behalf of a user, below `/api/v1`.
async fn ask(app: &App, user: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    on_behalf(app, user, method, &format!("/api/v1{path}"), body).await
}

/// The userId of a user of the test's partner, who is made by it.
async fn id_of(app: &App, user: &str) -> String {
    text(&ask(app, user, "GET", "/users/me", None).await.expect(200).body["data"]["id"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// A group of these users, the first of whom owns it. Returns its id.
async fn group(app: &App, users: &[&str], change: Value) -> String {
    let mut ids = Vec::new();
    for user in users {
        ids.push(id_of(app, user).await);
    }
    let mut body = json!({"type": "GROUP", "title": "Lunch", "participantIds": ids});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    text(&ask(app, users[0], "POST", "/chatrooms", Some(body)).await.expect(201).body["data"]["roomId"])
}

/// Sends a text into a room.
async fn send(app: &App, user: &str, room: &str, text: &str) -> Answer {
    ask(app, user, "POST", "/messages", Some(json!({"roomId": room, "content": text}))).await
}

/// The texts of a room's newest messages, newest first.
async fn texts(app: &App, user: &str, room: &str) -> Vec<String> {
    let page = ask(app, user, "GET", &format!("/messages/{room}"), None).await.expect(200).body;
    page["data"]["items"].as_array().unwrap().iter().map(|item| text(&item["content"]["text"])).collect()
}

/// The events of a room's stream: their types.
async fn events(app: &App, user: &str, room: &str, after: i64) -> Vec<String> {
    let path = format!("/chatrooms/{room}/events?after={after}");
    let found = ask(app, user, "GET", &path, None).await.expect(200).body["data"].clone();
    found["items"].as_array().unwrap().iter().map(|event| text(&event["eventType"])).collect()
}
