//! Rooms: users of a partner make them, come and go, and write.

mod client;
mod connection;
mod crash;
mod iridium;
mod isolation;
mod law;
mod ledger;
mod member;
mod message;
mod page;
mod plan;
mod promise;
mod stomp;
mod stream;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::app::{Answer, App};
use crate::support::process;
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

/// A request with a user's token at a process.
async fn ask_at(
    http: &reqwest::Client,
    address: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let method = method.parse().unwrap();
    let mut request = http.request(method, format!("http://{address}/api/v1{path}")).bearer_auth(token);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    process::ask(request).await.expect("an answer")
}

/// Makes users and a group of them at a process; the first one owns it. `http`: signed in as their partner. Returns the
/// group's id and the users' tokens.
async fn group_at(http: &reqwest::Client, address: SocketAddr, users: &[&str]) -> (String, Vec<String>) {
    let (mut tokens, mut ids) = (Vec::new(), Vec::new());
    for user in users {
        let path = format!("/v1/users/{user}/token");
        let (status, made) = process::post(http, address, &path, &json!({})).await.expect("an answer");
        assert_eq!(status, 200, "{made}");
        tokens.push(text(&made["accessToken"]));
        ids.push(text(&made["userId"]));
    }
    let body = json!({"type": "GROUP", "title": "Lunch", "participantIds": ids});
    let (status, made) = ask_at(http, address, &tokens[0], "POST", "/chatrooms", Some(body)).await;
    assert_eq!(status, 201, "{made}");
    (text(&made["data"]["roomId"]), tokens)
}

/// Sends a text into a room at a process. Returns the message's id.
async fn send_at(http: &reqwest::Client, address: SocketAddr, token: &str, room: &str, content: &str) -> String {
    let body = json!({"roomId": room, "content": content});
    let (status, sent) = ask_at(http, address, token, "POST", "/messages", Some(body)).await;
    assert_eq!(status, 201, "{sent}");
    text(&sent["data"]["id"])
}
