//! Inboxes of users: items, their changes, and live connections.

mod client;
mod element;
mod item;
mod live;
mod plan;
mod watch;

use std::net::SocketAddr;

use notihub::hub::Hub;
use notihub::{api, http};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::app::{Answer, App};
use crate::support::wait::PATIENCE;

/// A message to the inboxes of these users.
fn to_inbox(to: &[&str], body: &str) -> Value {
    json!({"type": "NEWS", "channels": [{"channel": "INAPP", "to": to, "body": body}]})
}

impl App {
    /// A request of the test's partner on behalf of a user.
    async fn as_user(&self, user: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let token = self.fresh_token().await;
        self.ask_as(&token, user, method, path, body).await
    }

    /// The same with a token of another partner.
    async fn ask_as(&self, token: &str, user: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, self.uri(path)).bearer_auth(token).header("x-user", user);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        Answer::read(request).await
    }

    /// The bodies that a list shows.
    async fn inbox(&self, user: &str, query: &str) -> Vec<String> {
        let page = self.as_user(user, "GET", &format!("/v1/inbox{query}"), None).await.expect(200);
        let items = page.body["items"].as_array().unwrap().iter();
        items.map(|item| item["body"].as_str().unwrap().to_owned()).collect()
    }

    /// (unseen, unread).
    async fn counts(&self, user: &str) -> (i64, i64) {
        let counts = self.as_user(user, "GET", "/v1/inbox/counts", None).await.expect(200).body;
        (counts["unseen"].as_i64().unwrap(), counts["unread"].as_i64().unwrap())
    }

    /// Posts one item to a user, and delivers it.
    async fn arrive(&self, user: &str, body: &str) -> String {
        let id = self.post("/v1/messages", to_inbox(&[user], body)).await.expect(202).id();
        self.work().await;
        format!("{id}-1")
    }
}

/// A stream of events.
pub struct Live {
    response: reqwest::Response,
    received: String,
}

/// One event: its name, id and data.
#[derive(Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Live {
    pub async fn open(request: reqwest::RequestBuilder) -> Live {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Live { response, received: String::new() }
    }

    /// The next event; None at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((frame, rest)) = self.received.split_once("\n\n") {
                let frame = frame.to_owned();
                self.received = rest.to_owned();
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let Some(name) = field("event: ") else { continue };
                let data = serde_json::from_str(&field("data: ").expect("data")).expect("JSON");
                return Some(Event { name, id: field("id: "), data });
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("an event or an end").expect("a body")?;
            self.received.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// The first frame says how long a client waits before it comes back.
    pub async fn expect_retry(&mut self) {
        let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("a frame").expect("a body").expect("a frame");
        self.received.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        assert!(self.received.starts_with("retry: "), "{}", self.received);
    }

    /// The next event, which has this name.
    pub async fn expect(&mut self, name: &'static str) -> Event {
        let event = self.next().await.expect("an event");
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// The next item's body, and the `unread` that follows it.
    async fn item(&mut self) -> (String, i64) {
        let item = self.expect("item").await;
        let counts = self.expect("counts").await;
        (item.data["body"].as_str().unwrap().to_owned(), counts.data["unread"].as_i64().unwrap())
    }
}

/// Serves the API of another process.
pub async fn serve(hub: &Hub) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    http::server::start(listener, api::router(hub), &hub.shutdown);
    address
}
