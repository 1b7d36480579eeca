//! Connections of users: what the others of a user get, what others see of it, and how many there may be.

use serde_json::{Value, json};

use super::stomp::{Client, two};
use super::{ask, group, id_of, send, text};
use crate::support::app::App;
use crate::support::database::allow_sessions;
use crate::support::hubs::{start_live, two_live};
use crate::support::wait::until;
use crate::user::{subscriber, user_key};

/// S4-82, S4-211, S4-212: the other connections of a sender, at another process, get the statuses of its stored
/// messages, once; the connection that sends gets them once, too.
#[tokio::test]
async fn statuses_reach_the_senders_other_connections() {
    let app = App::new().await;
    let (_other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let status = format!("/topic/message/status/{room}");
    let (mut here, mut also) = (Client::connect(app.address, &one).await, Client::connect(there, &one).await);
    let mut stranger = Client::connect(there, &two).await;
    for client in [&mut here, &mut also, &mut stranger] {
        client.subscribe("s", &status, &[]).await;
        client.subscribe("m", &format!("/topic/messages/{room}"), &[]).await;
    }
    for temp_id in ["t-1", "t-2"] {
        here.call("/app/chat", json!({"tempId": temp_id, "roomId": room, "content": "Hello"})).await;
        let words = async |client: &mut Client, most: usize| {
            let mut words = Vec::new();
            for _ in 0..most {
                let body = client.message("s").await.json();
                assert_eq!(body["tempId"], temp_id);
                words.push(text(&body["status"]));
            }
            words
        };
        assert_eq!(words(&mut here, 4).await, ["SENDING", "SENT_TO_KAFKA", "PROCESSING", "SAVED"]);
        assert_eq!(words(&mut also, 3).await, ["SENT_TO_KAFKA", "PROCESSING", "SAVED"]);
        // Its event is the connection's next frame of this room: its statuses did not come twice.
        here.message("m").await;
    }
    stranger.message("m").await;
    stranger.call("/app/chat", json!({"tempId": "t-3", "roomId": room, "content": "Hello"})).await;
    assert_eq!(stranger.message("s").await.json()["tempId"], "t-3", "no status of another's message");
    app.done().await;
}

/// S2-51, S2-65, S4-73: a room that the user does not look at is news on its own queue, with what is unread; one that
/// it looks at is not. The numbers of streams come on request.
#[tokio::test]
async fn room_that_is_not_looked_at_is_news() {
    let app = App::new().await;
    start_live(&app.hub);
    let (room, _, two) = two(&app).await;
    let second = group(&app, &["u-1", "u-2"], json!({})).await;
    let mut client = Client::connect(app.address, &two).await;
    let two_id = id_of(&app, "u-2").await;
    let destination = format!("/exchange/chat.exchange/chat.user.{two_id}.notification");
    client.subscribe("n", &destination, &[]).await;
    send(&app, "u-1", &room, "a").await.expect(201);
    let news = client.message("n").await.json();
    let wanted = json!({"eventType": "ROOM_UPDATED", "roomId": room, "unreadCount": 1, "unreadMentions": 0,
        "lastMessage": "a"});
    assert_eq!(news, wanted);
    // Read elsewhere: the count is news as well.
    ask(&app, "u-2", "POST", "/messages/mark-read", Some(json!({"roomId": room}))).await.expect(200);
    assert_eq!(client.message("n").await.json()["unreadCount"], 0);
    client.subscribe("m", &format!("/topic/messages/{room}"), &[]).await;
    send(&app, "u-1", &room, "b").await.expect(201);
    client.message("m").await;
    send(&app, "u-1", &second, "c").await.expect(201);
    let news = client.message("n").await.json();
    assert_eq!((&news["roomId"], &news["lastMessage"]), (&json!(second), &json!("c")), "nothing of the open room");
    // A changed profile ends the user's streams, which are opened again.
    ask(&app, "u-2", "PUT", "/users/me", Some(json!({"nickname": "Two"}))).await.expect(200);
    send(&app, "u-1", &second, "d").await.expect(201);
    assert_eq!(client.message("n").await.json()["lastMessage"], "d");
    client.subscribe("h", "/user/queue/sync", &[]).await;
    let heads = client.message("h").await.json();
    let of_room = heads["heads"].as_array().unwrap().iter().find(|head| head["stream"] == format!("room:{room}"));
    let head = app.count("select seq from room_heads order by room_id limit 1").await;
    assert_eq!(of_room.unwrap()["seq"], head, "{heads}");
    assert!(!text(&heads["epoch"]).is_empty());
    app.done().await;
}

/// S4-166, S4-167, L12: a user that opens one room alone looks at it, with the presence that it chose; one that
/// is invisible is not shown. Typing ends by itself; a user without a connection is OFFLINE a little later.
#[tokio::test]
async fn others_see_a_user_come_and_go() {
    let app = App::new().await;
    start_live(&app.hub);
    let (room, one, two) = two(&app).await;
    let one_id = id_of(&app, "u-1").await;
    let mut watcher = Client::connect(app.address, &two).await;
    watcher.subscribe("a", &format!("/topic/active/{room}"), &[]).await;
    watcher.message("a").await;
    watcher.subscribe("t", &format!("/topic/typing/{room}"), &[]).await;
    let shows = |body: &Value, status: &str, active: bool| {
        assert_eq!(
            (&body["userId"], &body["status"], &body["active"]),
            (&json!(one_id), &json!(status), &json!(active))
        );
    };
    ask(&app, "u-1", "PUT", "/users/status", Some(json!({"status": "OFFLINE"}))).await.expect(200);
    let mut hidden = Client::connect(app.address, &one).await;
    hidden.subscribe("m", &format!("/topic/messages/{room}"), &[]).await;
    ask(&app, "u-1", "PUT", "/users/status", Some(json!({"status": "BUSY"}))).await.expect(200);
    shows(&watcher.message("a").await.json(), "BUSY", true);
    let second = group(&app, &["u-1"], json!({})).await;
    hidden.subscribe("m2", &format!("/topic/messages/{second}"), &[]).await;
    shows(&watcher.message("a").await.json(), "BUSY", false);
    hidden.call("/app/active", json!({"roomId": room, "active": true})).await;
    shows(&watcher.message("a").await.json(), "BUSY", true);
    hidden.call("/app/typing", json!({"roomId": room, "isTyping": true})).await;
    assert_eq!(watcher.message("t").await.json()["isTyping"], true);
    drop(hidden);
    shows(&watcher.message("a").await.json(), "BUSY", false);
    assert_eq!(watcher.message("t").await.json()["isTyping"], false, "it gave no other sign");
    shows(&watcher.message("a").await.json(), "OFFLINE", false);
    // A room may have both turned off.
    let settings = json!({"settings": {"typing": false, "presence": false}});
    ask(&app, "u-1", "PUT", &format!("/chatrooms/{second}"), Some(settings)).await.expect(200);
    let mut silent = Client::connect(app.address, &one).await;
    silent.subscribe("m2", &format!("/topic/messages/{second}"), &[]).await;
    let two_id = id_of(&app, "u-2").await;
    let invited = json!({"userIds": [two_id]});
    ask(&app, "u-1", "POST", &format!("/chatrooms/{second}/participants"), Some(invited)).await.expect(200);
    watcher.subscribe("a2", &format!("/topic/active/{second}"), &[]).await;
    watcher.message("a2").await;
    watcher.subscribe("t2", &format!("/topic/typing/{second}"), &[]).await;
    for (call, flag) in [("typing", "isTyping"), ("active", "active")] {
        silent.call(&format!("/app/{call}"), json!({"roomId": second, flag: true})).await;
    }
    silent.call("/app/active", json!({"roomId": room, "active": true})).await;
    shows(&watcher.message("a").await.json(), "BUSY", true);
    assert!(watcher.waits("a2").is_none() && watcher.waits("t2").is_none());
    app.done().await;
}

/// S2-55, S4-167: a user of whom nothing came for five minutes is AWAY, and ONLINE again with the next frame or
/// request.
#[tokio::test]
async fn user_that_does_nothing_is_away() {
    let app = App::new().await;
    start_live(&app.hub);
    let (room, one, _) = two(&app).await;
    let one_id = id_of(&app, "u-1").await;
    let mut client = Client::connect(app.address, &one).await;
    let shows = async |status: &str| {
        until(status, async || {
            let user = ask(&app, "u-2", "GET", &format!("/users/{one_id}"), None).await.expect(200).body;
            user["data"]["status"] == status
        })
        .await;
    };
    shows("ONLINE").await;
    app.advance(360);
    shows("AWAY").await;
    client.call("/app/typing", json!({"roomId": room, "isTyping": true})).await;
    shows("ONLINE").await;
    app.advance(360);
    shows("AWAY").await;
    let request = app.http.get(app.uri("/api/v1/chatrooms")).bearer_auth(&one);
    crate::support::app::Answer::read(request).await.expect(200);
    shows("ONLINE").await;
    app.done().await;
}

/// ST-22: of more than ten WebSockets of a user the oldest ends, and the others go on.
#[tokio::test]
async fn user_has_at_most_ten_sockets() {
    let app = App::new().await;
    start_live(&app.hub);
    let (room, _, two) = two(&app).await;
    let key = user_key(&app, app.partner.partner_id, 60).await;
    let one = subscriber(&app, app.partner.partner_id, &key, "u-1");
    let mut bystander = Client::connect(app.address, &two).await;
    let mut clients = Vec::new();
    for _ in 0..11 {
        clients.push(Client::connect(app.address, &one).await);
    }
    assert_eq!(clients.remove(0).end().await, Some(4409));
    for client in clients.iter_mut().chain([&mut bystander]) {
        client.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
    }
    app.done().await;
}

/// S2-77, S2-83, S4-209: over the limit a message is refused as one that may be sent again, and then it is stored.
#[tokio::test]
async fn message_over_the_limit_may_be_sent_again() {
    let app = App::with(&["--user-sends=1"]).await;
    let (room, one, _) = two(&app).await;
    let mut client = Client::connect(app.address, &one).await;
    client.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
    let mut last = async |temp_id: &str, frames: usize| {
        client.call("/app/chat", json!({"tempId": temp_id, "roomId": room, "content": "Hello"})).await;
        let mut last = Value::Null;
        for _ in 0..frames {
            last = client.message("s").await.json();
        }
        last
    };
    for temp_id in ["t-1", "t-2"] {
        assert_eq!(last(temp_id, 4).await["status"], "SAVED", "a burst of two");
    }
    let failed = last("t-3", 2).await;
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("FAILED"), &json!("rate_limited")));
    assert_eq!(failed["retryable"], true);
    app.advance(1);
    assert_eq!(last("t-3", 4).await["status"], "SAVED");
    app.done().await;
}

/// S4-46: a page of another origin connects only if the operator allows it; a client that is no page always may.
#[tokio::test]
async fn page_of_another_origin_connects_if_it_is_allowed() {
    for (flags, origin, status) in [
        (vec![], None, 101),
        (vec![], Some("https://evil.example"), 403),
        (vec!["--allowed-origin=https://shop.example"], Some("https://shop.example"), 101),
        (vec!["--allowed-origin=*"], Some("https://any.example"), 101),
    ] {
        let app = App::with(&flags).await;
        let mut request =
            app.http.get(app.uri("/ws/chat")).header("connection", "upgrade").header("upgrade", "websocket");
        request = request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{flags:?} {origin:?}");
        app.done().await;
    }
}

/// L4, L6: a user that left a room and came back resumes with what was written since, and sees nothing of what was
/// written in between: not over STOMP, and not as the last message of the room.
#[tokio::test]
async fn user_that_came_back_gets_what_was_written_since() {
    let app = App::new().await;
    start_live(&app.hub);
    let (room, _, two) = two(&app).await;
    let two_id = id_of(&app, "u-2").await;
    let topic = format!("/topic/rooms/{room}");
    let mut client = Client::connect(app.address, &two).await;
    client.subscribe("e", &topic, &[]).await;
    send(&app, "u-1", &room, "a").await.expect(201);
    let last = client.message("e").await;
    let (seq, epoch) = (last.header("x-seq").to_owned(), last.header("x-epoch").to_owned());
    drop(client);
    ask(&app, "u-2", "DELETE", &format!("/chatrooms/{room}"), None).await.expect(204);
    send(&app, "u-1", &room, "SECRET").await.expect(201);
    let mut client = Client::connect(app.address, &two).await;
    client.subscribe("n", "/user/queue/notifications", &[]).await;
    let invited = json!({"userIds": [two_id]});
    ask(&app, "u-1", "POST", &format!("/chatrooms/{room}/participants"), Some(invited)).await.expect(200);
    let mut news = client.message("n").await;
    while news.json()["eventType"] != "ROOM_UPDATED" {
        news = client.message("n").await;
    }
    assert_eq!((&news.json()["roomId"], &news.json()["lastMessage"]), (&json!(room), &json!("")));
    for text in ["b", "c"] {
        send(&app, "u-1", &room, text).await.expect(201);
    }
    client.subscribe("e", &topic, &[("x-from-seq", &seq), ("x-epoch", &epoch)]).await;
    send(&app, "u-1", &room, "d").await.expect(201);
    let mut texts = Vec::new();
    while texts.len() < 3 {
        let event = client.message("e").await.json();
        if event["eventType"] == "MESSAGE_CREATED" {
            texts.push(text(&event["data"]["content"]));
        }
    }
    assert_eq!(texts, ["b", "c", "d"]);
    app.done().await;
}

/// L6: one that is removed gets that on its subscription to messages, and nothing more of the room: no typing either,
/// where that is all that it subscribes to.
#[tokio::test]
async fn removed_member_gets_nothing_more_of_any_kind() {
    let app = App::new().await;
    start_live(&app.hub);
    let (room, one, two) = two(&app).await;
    let two_id = id_of(&app, "u-2").await;
    let mut typist = Client::connect(app.address, &one).await;
    let mut reader = Client::connect(app.address, &two).await;
    reader.subscribe("m", &format!("/topic/messages/{room}"), &[]).await;
    let mut watcher = Client::connect(app.address, &two).await;
    watcher.subscribe("t", &format!("/topic/typing/{room}"), &[]).await;
    watcher.subscribe("n", "/user/queue/notifications", &[]).await;
    ask(&app, "u-1", "DELETE", &format!("/chatrooms/{room}/participants/{two_id}"), None).await.expect(204);
    assert_eq!(reader.message("m").await.json(), json!({"eventType": "MEMBER_REMOVED", "roomId": room}));
    while watcher.message("n").await.json()["eventType"] != "ROOM_LEFT" {}
    let typing = json!({"roomId": room}).to_string();
    typist.write("SEND", &[("destination", "/app/typing"), ("receipt", "r")], &typing).await;
    assert_eq!(typist.next().await.header("receipt-id"), "r");
    // What comes after it shows that nothing came before.
    group(&app, &["u-1", "u-2"], json!({})).await;
    while watcher.message("n").await.json()["eventType"] != "ROOM_ENTERED" {}
    assert!(watcher.waits("t").is_none() && reader.waits("m").is_none());
    app.done().await;
}

/// S4-209, L11: messages that are refused, of users who are not in the room, do not use up what its members may write.
#[tokio::test]
async fn refused_messages_do_not_use_up_a_rooms_limit() {
    let app = App::with(&["--room-sends=1"]).await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    for _ in 0..5 {
        send(&app, "u-9", &room, "let me in").await.refused(404, "not_found");
    }
    for text in ["a", "b"] {
        send(&app, "u-1", &room, text).await.expect(201);
    }
    send(&app, "u-1", &room, "c").await.refused(429, "rate_limited");
    app.done().await;
}

/// ST-22: a message that is too large ends the connection with the code that says so.
#[tokio::test]
async fn message_that_is_too_large_ends_the_connection() {
    let app = App::new().await;
    let (room, one, _) = two(&app).await;
    let mut client = Client::connect(app.address, &one).await;
    client.call("/app/chat", json!({"roomId": room, "content": "x".repeat(70_000)})).await;
    assert_eq!(client.end().await, Some(1009));
    assert_eq!(app.count("select count(*) from chat_messages").await, 0);
    app.done().await;
}

/// S4-43, ST-22: while the database is away, a client that connects or subscribes is asked to come again, and not to
/// sign in: with the same token it does.
#[tokio::test]
async fn database_that_is_away_asks_clients_to_come_again() {
    let app = App::new().await;
    let (room, one, _) = two(&app).await;
    let topic = format!("/topic/rooms/{room}");
    let mut connected = Client::connect(app.address, &one).await;
    let mut connecting = Client::open(app.address, "/ws/chat").await;
    allow_sessions(&app.url, false).await;
    let bearer = format!("Bearer {one}");
    let headers = [("accept-version", "1.2"), ("host", "x"), ("Authorization", bearer.as_str())];
    connecting.write("CONNECT", &headers, "").await;
    connected.write("SUBSCRIBE", &[("id", "e"), ("destination", &topic)], "").await;
    for mut client in [connecting, connected] {
        let answer = client.next().await;
        assert_eq!(
            (answer.command.as_str(), answer.header("message")),
            ("ERROR", "database_unavailable"),
            "{answer:?}"
        );
        assert_eq!(client.end().await, Some(1012));
    }
    allow_sessions(&app.url, true).await;
    until("the same token connects again", async || {
        let mut again = Client::open(app.address, "/ws/chat").await;
        again.write("CONNECT", &headers, "").await;
        again.next().await.command == "CONNECTED"
    })
    .await;
    app.done().await;
}

/// ST-22: a client whose frames are refused again and again is ended, also where it is not told of each.
#[tokio::test]
async fn client_that_is_refused_again_and_again_is_ended() {
    let app = App::new().await;
    let (_, one, _) = two(&app).await;
    let never = app.hub.next_id().to_string();
    for destination in ["/app/chat", "/app/typing", "/app/active"] {
        let mut client = Client::connect(app.address, &one).await;
        for _ in 0..100 {
            client.call(destination, json!({"roomId": never, "content": "a"})).await;
        }
        assert_eq!(client.end().await, Some(4429), "{destination}");
    }
    app.done().await;
}
