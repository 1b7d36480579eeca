//! STOMP over WebSocket: frame by frame, at processes of this test.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::room::{ask, group, id_of, send, text};
use crate::support::app::App;
use crate::support::hubs::two_live;
use crate::support::wait::until;
use crate::user::{on_behalf, subscriber, user_key};

/// A frame from the server.
#[derive(Debug, Clone)]
pub struct Frame {
    pub command: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Frame {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// A client that reads frames one by one.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    frames: Vec<Frame>,
    pub closed: Option<u16>,
    framing: &'static str,
}

fn frame(command: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    format!("{command}\n{headers}\n{body}\0")
}

impl Client {
    pub(super) async fn open(address: SocketAddr, path: &str) -> Client {
        Client::over(TcpStream::connect(address).await.unwrap(), address, path).await
    }

    async fn over(tcp: TcpStream, address: SocketAddr, path: &str) -> Client {
        let request = format!("ws://{address}{path}").into_client_request().unwrap();
        let (socket, _) = client_async(request, tcp).await.unwrap();
        Client { socket, frames: Vec::new(), closed: None, framing: "plain" }
    }

    /// Connected with a token.
    pub async fn connect(address: SocketAddr, token: &str) -> Client {
        let mut client = Client::open(address, "/ws/chat").await;
        client.begin(token).await;
        client
    }

    /// The same with the least room for bytes that were not read yet.
    pub async fn connect_narrow(address: SocketAddr, token: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut client = Client::over(socket.connect(address).await.unwrap(), address, "/ws/chat").await;
        client.begin(token).await;
        client
    }

    async fn begin(&mut self, token: &str) {
        let bearer = format!("Bearer {token}");
        let headers =
            [("accept-version", "1.2"), ("heart-beat", "0,0"), ("host", "x"), ("Authorization", bearer.as_str())];
        self.write("CONNECT", &headers, "").await;
        let connected = self.next().await;
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        assert_eq!((connected.header("version"), connected.header("heart-beat")), ("1.2", "10000,10000"));
    }

    /// Sends a frame.
    pub async fn write(&mut self, command: &str, headers: &[(&str, &str)], body: &str) {
        let text = frame(command, headers, body);
        let text = if self.framing == "sockjs" { json!([text]).to_string() } else { text };
        // The next read finds that the server has gone.
        let _sent = self.socket.send(Message::Text(text.into())).await;
    }

    /// Subscribes, and returns the RECEIPT.
    pub async fn subscribe(&mut self, id: &str, destination: &str, more: &[(&str, &str)]) -> Frame {
        let mut headers = vec![("id", id), ("destination", destination), ("receipt", id)];
        headers.extend(more);
        self.write("SUBSCRIBE", &headers, "").await;
        let receipt = self.next().await;
        assert_eq!((receipt.command.as_str(), receipt.header("receipt-id")), ("RECEIPT", id), "{receipt:?}");
        receipt
    }

    /// Sends to an address of the application.
    pub async fn call(&mut self, destination: &str, body: Value) {
        self.write("SEND", &[("destination", destination)], &body.to_string()).await;
    }

    /// The next frame; an END one once the connection is closed.
    pub async fn next(&mut self) -> Frame {
        while self.frames.is_empty() {
            self.read().await;
        }
        self.frames.remove(0)
    }

    /// The next message of a subscription; others wait.
    pub async fn message(&mut self, id: &str) -> Frame {
        let is_wanted = |frame: &Frame| {
            frame.command == "END" || (frame.command == "MESSAGE" && frame.header("subscription") == id)
        };
        loop {
            if let Some(n) = self.frames.iter().position(is_wanted) {
                let frame = self.frames.remove(n);
                assert_ne!(frame.command, "END", "the connection is over: {:?}", self.closed);
                return frame;
            }
            self.read().await;
        }
    }

    /// A message of a subscription that has come already.
    pub(super) fn waits(&self, id: &str) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.header("subscription") == id)
    }

    /// Reads what the server sends next.
    async fn read(&mut self) {
        let received = tokio::time::timeout(std::time::Duration::from_secs(30), self.socket.next()).await;
        let text = match received.expect("a frame within half a minute") {
            Some(Ok(Message::Text(text))) => text.to_string(),
            Some(Ok(Message::Close(close))) => {
                self.closed = close.map(|close| close.code.into());
                return;
            }
            Some(Ok(_)) => return,
            None | Some(Err(_)) => {
                self.frames.push(Frame { command: "END".into(), headers: Vec::new(), body: String::new() });
                return;
            }
        };
        let text = match (self.framing, text.strip_prefix('a')) {
            ("sockjs", Some(array)) => serde_json::from_str::<Vec<String>>(array).unwrap().concat(),
            _ => text,
        };
        for one in text.split('\0').map(|one| one.trim_start_matches('\n')).filter(|one| !one.is_empty()) {
            let (head, body) = one.split_once("\n\n").unwrap_or((one, ""));
            let mut lines = head.lines();
            let command = lines.next().unwrap_or_default().to_owned();
            let headers = lines.filter_map(|line| line.split_once(':'));
            let headers = headers.map(|(name, value)| (name.to_owned(), value.replace("\\c", ":"))).collect();
            self.frames.push(Frame { command, headers, body: body.to_owned() });
        }
    }

    /// Reads to the end, and returns the code of the close.
    pub async fn end(&mut self) -> Option<u16> {
        while self.next().await.command != "END" {}
        self.closed
    }
}

/// Two users of a room, with their tokens.
pub async fn two(app: &App) -> (String, String, String) {
    let room = group(app, &["u-1", "u-2"], json!({})).await;
    let key = user_key(app, app.partner.partner_id, 0).await;
    let token = |user: &str| subscriber(app, app.partner.partner_id, &key, user);
    (room, token("u-1"), token("u-2"))
}

/// S2-3, S2-4, S2-16, S2-44, S2-50, S2-54, S4-2, S4-3, S4-57, S4-58, S4-199, S4-206, S2-13, S2-47, S2-51, S2-53, S2-59,
/// S2-64, S4-48, S4-49, S4-50, S4-82, S4-83, S4-84, S4-85, S4-86, S4-87, S4-161, S4-164, S4-165, S4-200, S4-211, L1,
/// L3: a message reaches both users, at two processes, in order and with its numbers; its sender alone gets the
/// statuses, in their order, and its tempId.
#[tokio::test]
async fn two_users_at_two_processes_talk() {
    let app = App::new().await;
    let (_other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let mut here = Client::connect(app.address, &one).await;
    let mut away = Client::connect(there, &two).await;
    let topic = format!("/topic/messages/{room}");
    let receipt = here.subscribe("m", &topic, &[]).await;
    assert_eq!(receipt.header("x-head"), "1");
    assert!(!receipt.header("x-epoch").is_empty());
    here.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
    away.subscribe("m", &topic, &[]).await;
    away.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
    let all = format!("/exchange/chat.exchange/chat.channel.{room}.message");
    away.subscribe("e", &all, &[("accept-event-v", "2")]).await;
    let content = json!({"text": "Hello", "type": "TEXT"});
    here.call("/app/chat", json!({"tempId": "t-1", "roomId": room, "content": content, "status": "SENDING"})).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let status = here.message("s").await.json();
        assert_eq!(status["tempId"], "t-1");
        statuses.push((text(&status["status"]), status["persistedId"].clone()));
    }
    let words: Vec<&str> = statuses.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["SENDING", "SENT_TO_KAFKA", "PROCESSING", "SAVED"]);
    let id = text(&statuses[3].1);
    let own = here.message("m").await;
    assert_eq!((&own.json()["id"], &own.json()["tempId"]), (&json!(id), &json!("t-1")));
    let got = away.message("m").await;
    assert_eq!((got.header("x-seq"), got.header("x-prev"), got.header("message-id")), ("2", "1", id.as_str()));
    let body = got.json();
    assert_eq!((&body["eventType"], &body["content"]["text"]), (&json!("MESSAGE_CREATED"), &json!("Hello")));
    assert!(body.get("tempId").is_none(), "{body}");
    let event = away.message("e").await.json();
    assert_eq!((&event["v"], &event["messageId"], &event["payload"]["id"]), (&json!(2), &json!(id), &json!(id)));
    // By the other's words, and without a tempId.
    away.call(&format!("/app/room/{room}/send"), json!({"content": "Hi", "type": "TEXT"})).await;
    assert_eq!(here.message("m").await.json()["content"]["text"], "Hi");
    assert_eq!(away.message("m").await.header("x-prev"), "2");
    // Edits come over the same topics.
    ask(&app, "u-1", "PUT", &format!("/messages/{id}"), Some(json!({"content": "Hello!"}))).await.expect(200);
    let edited = away.message("m").await.json();
    assert_eq!((&edited["eventType"], &edited["content"]["text"]), (&json!("MESSAGE_EDITED"), &json!("Hello!")));
    app.done().await;
}

/// S4-59, S4-88, S4-197, S4-212: a message that is refused does not end the connection: its sender gets FAILED with the
/// reason, and the refusal on /user/queue/errors; the next message is sent. Sent again with its tempId, a
/// message is SAVED with the first id.
#[tokio::test]
async fn message_that_fails_is_told_to_its_sender() {
    let app = App::new().await;
    let (room, one, _) = two(&app).await;
    let mut client = Client::connect(app.address, &one).await;
    client.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
    client.subscribe("r", "/user/queue/errors", &[]).await;
    let message = |text: &str| json!({"tempId": "t-1", "roomId": room, "content": text});
    client.call("/app/chat", message("first")).await;
    let mut saved = Vec::new();
    for _ in 0..4 {
        saved.push(client.message("s").await.json());
    }
    client.call("/app/chat", message("other")).await;
    assert_eq!(client.message("s").await.json()["status"], "SENDING");
    let failed = client.message("s").await.json();
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("FAILED"), &json!("temp_id_reused")));
    assert_eq!(failed["retryable"], false);
    assert_eq!(client.message("r").await.json()["reason"], "temp_id_reused");
    client.call("/app/chat", json!({"tempId": "t-2", "roomId": room, "content": ""})).await;
    assert_eq!(client.message("r").await.json()["reason"], "empty");
    assert_eq!(client.message("s").await.json()["status"], "FAILED", "although its content could not be read");
    client.call("/app/chat", message("first")).await;
    for (again, before) in [0, 1, 2, 3].map(|n| (n, &saved[n])) {
        assert_eq!(client.message("s").await.json(), *before, "{again}");
    }
    let other = group(&app, &["u-3"], json!({})).await;
    client.call("/app/chat", json!({"tempId": "t-3", "roomId": other, "content": "a"})).await;
    assert_eq!(client.message("r").await.json()["reason"], "not_found");
    client.call("/app/read", json!({"messageId": "nonsense"})).await;
    assert_eq!(client.message("r").await.json()["reason"], "not_found");
    assert_eq!(app.count("select count(*) from chat_messages").await, 1);
    app.done().await;
}

/// S4-40, S4-44, S4-45, S4-160, S4-197, L11: without a user's token there is no session; a room that one is not in is
/// not subscribed to; each is answered with its reason, and the connection ends.
#[tokio::test]
async fn session_and_room_are_for_those_who_may() {
    let app = App::new().await;
    let (room, one, _) = two(&app).await;
    for (bearer, reason) in [("", "unauthenticated"), ("nonsense", "unauthenticated"), (&app.token, "forbidden")] {
        let mut client = Client::open(app.address, "/ws").await;
        let bearer = format!("Bearer {bearer}");
        client.write("CONNECT", &[("accept-version", "1.2"), ("Authorization", &bearer)], "").await;
        let error = client.next().await;
        assert_eq!((error.command.as_str(), error.header("message")), ("ERROR", reason), "{error:?}");
        assert_eq!(client.end().await, Some(4401));
    }
    let key = user_key(&app, app.partner.partner_id, 60).await;
    let stranger = subscriber(&app, app.partner.partner_id, &key, "u-9");
    let never = app.hub.next_id().to_string();
    for id in [&room, &never] {
        for topic in ["messages", "message/status", "typing", "active", "rooms"] {
            let mut client = Client::connect(app.address, &stranger).await;
            let destination = format!("/topic/{topic}/{id}");
            client.write("SUBSCRIBE", &[("id", "1"), ("destination", &destination)], "").await;
            let error = client.next().await;
            assert_eq!((error.command.as_str(), error.header("message")), ("ERROR", "not_found"), "{topic} {error:?}");
            assert_eq!(client.end().await, Some(4400));
        }
    }
    let own = id_of(&app, "u-1").await;
    let mut client = Client::connect(app.address, &stranger).await;
    let destination = format!("/exchange/chat.exchange/chat.user.{own}.notification");
    client.write("SUBSCRIBE", &[("id", "1"), ("destination", &destination)], "").await;
    assert_eq!(client.next().await.header("message"), "forbidden");
    // The handshake may have the token as well, for clients of SockJS.
    let mut client = Client::open(app.address, &format!("/ws/chat?token={one}")).await;
    client.write("CONNECT", &[("accept-version", "1.1,1.0")], "").await;
    assert_eq!(client.next().await.header("version"), "1.1");
    app.done().await;
}

/// S4-43, L4, L6: a client that comes back names the last event that it has, at any process, and gets exactly what it
/// missed; another epoch is a reset. One that is removed gets that event, and nothing after it.
#[tokio::test]
async fn client_resumes_and_a_removed_one_gets_nothing_more() {
    let app = App::new().await;
    let (_other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let topic = format!("/topic/rooms/{room}");
    let mut client = Client::connect(app.address, &two).await;
    client.subscribe("e", &topic, &[]).await;
    send(&app, "u-1", &room, "a").await.expect(201);
    let first = client.message("e").await;
    let (seq, epoch) = (first.header("x-seq").to_owned(), first.header("x-epoch").to_owned());
    drop(client);
    for missed in ["b", "c"] {
        send(&app, "u-1", &room, missed).await.expect(201);
    }
    let mut client = Client::connect(there, &two).await;
    client.subscribe("e", &topic, &[("x-from-seq", &seq), ("x-epoch", &epoch)]).await;
    for missed in ["b", "c"] {
        assert_eq!(client.message("e").await.json()["data"]["content"], missed);
    }
    let mut lost = Client::connect(there, &one).await;
    lost.subscribe("e", &topic, &[("x-from-seq", "1"), ("x-epoch", "other")]).await;
    let reset = lost.message("e").await.json();
    assert_eq!((&reset["eventType"], &reset["reason"]), (&json!("RESET"), &json!("epoch")));
    client.subscribe("n", "/user/queue/notifications", &[]).await;
    let two_id = id_of(&app, "u-2").await;
    let path = format!("/chatrooms/{room}/participants/{two_id}");
    ask(&app, "u-1", "DELETE", &path, None).await.expect(204);
    send(&app, "u-1", &room, "after").await.expect(201);
    assert_eq!(client.message("e").await.json()["eventType"], "MEMBER_REMOVED");
    let again = json!({"userIds": [two_id]});
    ask(&app, "u-1", "POST", &format!("/chatrooms/{room}/participants"), Some(again)).await.expect(200);
    // Nothing of the room in between.
    let mut told = Vec::new();
    while !told.contains(&json!("ROOM_ENTERED")) {
        let frame = client.next().await;
        assert_eq!(frame.header("subscription"), "n", "{frame:?}");
        let news = frame.json();
        // The room that it is in again may be news before its event: without what was written meanwhile.
        match news["eventType"] == "ROOM_UPDATED" {
            true => assert_eq!(news["lastMessage"], "", "{news}"),
            false => told.push(news["eventType"].clone()),
        }
    }
    told.sort_by_key(Value::to_string);
    assert_eq!(told, ["MEMBER_REMOVED", "ROOM_ENTERED", "ROOM_LEFT"]);
    app.done().await;
}

/// S2-52, S4-66, S4-75, S4-76, S4-162, S4-163, S4-166, S4-167, L12: others see who types, once a second; who looks at
/// the room; and who has read a message. Nothing of typing is stored.
#[tokio::test]
async fn others_see_who_types_and_reads() {
    let app = App::new().await;
    let (_other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let mut here = Client::connect(app.address, &one).await;
    let mut away = Client::connect(there, &two).await;
    away.subscribe("t", &format!("/topic/typing/{room}"), &[]).await;
    away.subscribe("a", &format!("/topic/active/{room}"), &[]).await;
    let snapshot = away.message("a").await.json();
    assert!(snapshot["activeUsers"].is_array(), "{snapshot}");
    away.subscribe("m", &format!("/topic/messages/{room}"), &[]).await;
    for _ in 0..3 {
        here.call("/app/typing", json!({"roomId": room, "isTyping": true})).await;
    }
    here.call("/app/typing", json!({"roomId": room, "isTyping": false})).await;
    let one_id = id_of(&app, "u-1").await;
    let typing = away.message("t").await.json();
    assert_eq!(
        (&typing["userId"], &typing["isTyping"], &typing["username"]),
        (&json!(one_id), &json!(true), &json!("u-1"))
    );
    assert_eq!(away.message("t").await.json()["isTyping"], false, "the others were too many");
    here.call("/app/active", json!({"roomId": room, "active": true})).await;
    let active = away.message("a").await.json();
    assert_eq!((&active["userId"], &active["active"]), (&json!(one_id), &json!(true)));
    let id = text(&send(&app, "u-2", &room, "read me").await.expect(201).body["data"]["id"]);
    away.message("m").await;
    here.write("SEND", &[("destination", "/app/read"), ("receipt", "r")], &json!({"messageId": id}).to_string()).await;
    assert_eq!(here.next().await.header("receipt-id"), "r");
    let read = away.message("m").await.json();
    assert_eq!(
        (&read["eventType"], &read["messageId"], &read["userId"]),
        (&json!("MESSAGE_READ"), &json!(id), &json!(one_id))
    );
    let shown = ask(&app, "u-2", "GET", &format!("/messages/{id}"), None).await.expect(200).body["data"].clone();
    assert_eq!(shown["readCount"], 1);
    drop(here);
    assert_eq!(away.message("a").await.json()["active"], false, "its connection is gone");
    app.done().await;
}

/// S2-56, S4-207, ST-28: a user that is blocked loses its connection at once; a process that stops closes its
/// connections so that clients come again.
#[tokio::test]
async fn connection_ends_with_what_it_rests_on() {
    let app = App::new().await;
    let (other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let mut client = Client::connect(app.address, &one).await;
    client.subscribe("m", &format!("/topic/messages/{room}"), &[]).await;
    let mut away = Client::connect(there, &two).await;
    let listeners = "select count(*) from pg_stat_activity \
        where datname = current_database() and query ilike 'listen%' and state = 'idle'";
    until("both processes listen", async || app.count(listeners).await >= 2).await;
    app.ask(&app.token, "PUT", "/v1/users/u-1", Some(json!({"state": "BLOCKED"}))).await.expect(200);
    let error = client.next().await;
    assert_eq!((error.command.as_str(), error.header("message")), ("ERROR", "user_blocked"), "{error:?}");
    assert_eq!(client.end().await, Some(4401));
    other.shutdown.stop();
    assert_eq!(away.end().await, Some(1012));
    until("connections that are gone listen no more", async || app.hub.streams.listened().is_empty()).await;
    app.done().await;
}

/// S4-47: SockJS: its greeting, its info, its frames over WebSocket, and 404 for its other transports.
#[tokio::test]
async fn sockjs_is_spoken_over_websocket() {
    let app = App::new().await;
    let (room, one, _) = two(&app).await;
    let get = async |path: &str| {
        let response = app.http.get(app.uri(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/ws/chat").await, (200, "Welcome to SockJS!\n".to_owned()));
    let (status, info) = get("/ws/chat/info?t=1").await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!((status, &info["websocket"], &info["cookie_needed"]), (200, &json!(true), &json!(false)));
    assert_eq!(get("/ws/chat/000/abc/xhr").await.0, 404);
    let mut client = Client::open(app.address, &format!("/ws/chat/000/abc/websocket?token={one}")).await;
    client.framing = "sockjs";
    assert_eq!(client.next().await.command, "o");
    client.write("CONNECT", &[("accept-version", "1.2")], "").await;
    assert_eq!(client.next().await.command, "CONNECTED");
    client.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
    client.call("/app/chat", json!({"tempId": "t", "roomId": room, "content": "by SockJS"})).await;
    for status in ["SENDING", "SENT_TO_KAFKA", "PROCESSING", "SAVED"] {
        assert_eq!(client.message("s").await.json()["status"], status);
    }
    client.write("DISCONNECT", &[("receipt", "bye")], "").await;
    assert_eq!(client.next().await.header("receipt-id"), "bye");
    on_behalf(&app, "u-1", "GET", &format!("/api/v1/messages/{room}"), None).await.expect(200);
    app.done().await;
}
