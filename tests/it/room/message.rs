//! Messages in rooms: sent, read, edited, deleted.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::room::{ask, events, group, id_of, send, text, texts};
use crate::support::app::App;
use crate::user::on_behalf;

/// S4-4, S2-19, S2-41, S2-48, S2-60, S2-88, S2-92, S4-27, S4-28: a message is stored when it is answered;
/// sent again with its tempId it is stored once, from however many requests at the same moment; another content with
/// that tempId is refused. Its tempId is shown to its sender alone.
#[tokio::test]
async fn message_sent_again_is_stored_once() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let body = json!({"roomId": room, "tempId": "t-1", "content": {"text": "Hello  ", "type": "TEXT"}});
    let sent = ask(&app, "u-1", "POST", "/messages", Some(body.clone())).await.expect(201).body["data"].clone();
    assert_eq!((&sent["content"]["text"], &sent["tempId"], &sent["no"]), (&json!("Hello"), &json!("t-1"), &json!(1)));
    assert_eq!((&sent["status"], &sent["receipt"]), (&json!("SAVED"), &json!("SENT")));
    assert_eq!(sent["id"], json!(format!("{room}-{}", sent["seq"])));
    let again = join_all((0..8).map(|_| ask(&app, "u-1", "POST", "/messages", Some(body.clone())))).await;
    for answer in again {
        assert_eq!((&answer.expect(200).body["data"]["id"]), (&sent["id"]));
    }
    let new = json!({"roomId": room, "tempId": "t-2", "content": "Raced"});
    let raced = join_all((0..8).map(|_| ask(&app, "u-1", "POST", "/messages", Some(new.clone())))).await;
    assert_eq!(raced.iter().filter(|answer| answer.status == 201).count(), 1);
    let other = json!({"roomId": room, "tempId": "t-1", "content": "Other"});
    ask(&app, "u-1", "POST", "/messages", Some(other.clone())).await.refused(409, "temp_id_reused");
    ask(&app, "u-2", "POST", "/messages", Some(other)).await.expect(201);
    let path = format!("/api/channels/{room}/messages");
    let channel = json!({"senderId": id_of(&app, "u-2").await, "content": "By channel", "type": "TEXT"});
    let by_channel = on_behalf(&app, "u-2", "POST", &path, Some(channel)).await.expect(201).body["data"].clone();
    assert_eq!((&by_channel["content"], &by_channel["status"]), (&json!("By channel"), &json!("SENT")));
    assert_eq!(texts(&app, "u-2", &room).await, ["By channel", "Other", "Raced", "Hello"]);
    let seen = ask(&app, "u-2", "GET", &format!("/messages/{}", text(&sent["id"])), None).await.expect(200).body;
    assert!(seen["data"].get("tempId").is_none(), "{seen}");
    assert_eq!(app.count("select count(*) from chat_messages").await, 4);
    app.done().await;
}

/// What cannot be sent is refused with its reason, and nothing is stored.
#[tokio::test]
async fn message_that_is_wrong_is_refused() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let with = async |content: Value| {
        ask(&app, "u-1", "POST", "/messages", Some(json!({"roomId": room, "content": content}))).await
    };
    with(json!("")).await.refused(422, "empty");
    with(json!("   ")).await.refused(422, "empty");
    with(json!({"text": "a".repeat(4_001)})).await.refused(422, "content_too_long");
    with(json!("a\u{0}b")).await.refused(422, "control_character");
    with(json!({"text": "a", "type": "SYSTEM"})).await.refused(422, "enum");
    with(json!({"attachments": [{"url": "http://a.example/x"}]})).await.refused(422, "image_url_invalid");
    with(json!({"attachments": [{"filename": "x"}]})).await.refused(422, "required");
    with(json!({"text": "a", "colour": "red"})).await.refused(422, "unknown_field");
    send(&app, "u-3", &room, "a stranger").await.refused(404, "not_found");
    send(&app, "u-1", &app.hub.next_id().to_string(), "nowhere").await.refused(404, "not_found");
    let other = json!({"roomId": room, "content": "a", "senderId": id_of(&app, "u-2").await});
    ask(&app, "u-1", "POST", "/messages", Some(other)).await.refused(403, "forbidden");
    let file = json!({"type": "FILE", "attachments": [{"url": "https://a.example/x.pdf", "filename": "x.pdf"}]});
    let sent = with(file).await.expect(201).body["data"].clone();
    assert_eq!(
        (&sent["content"]["type"], &sent["content"]["attachments"][0]["filename"]),
        (&json!("FILE"), &json!("x.pdf"))
    );
    assert_eq!(app.count("select count(*) from chat_messages").await, 1);
    app.done().await;
}

/// S2-22, S2-61, S2-93, S4-145, S4-146: pages of a room's history in both directions, and around a message.
#[tokio::test]
async fn history_is_read_in_pages() {
    let app = App::with(&["--user-sends=100"]).await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let mut ids = Vec::new();
    for n in 1..=7 {
        ids.push(text(&send(&app, "u-1", &room, &format!("m{n}")).await.expect(201).body["data"]["id"]));
    }
    let page = async |query: &str| {
        let found = ask(&app, "u-2", "GET", &format!("/messages/{room}?{query}"), None).await.expect(200).body;
        let items = found["data"]["items"].as_array().unwrap().clone();
        let texts: Vec<String> = items.iter().map(|item| text(&item["content"]["text"])).collect();
        (texts, found["data"].clone())
    };
    let (first, data) = page("limit=3").await;
    assert_eq!(first, ["m7", "m6", "m5"]);
    let (second, data) = page(&format!("limit=3&cursor={}", text(&data["nextCursor"]))).await;
    assert_eq!(second, ["m4", "m3", "m2"]);
    let (third, data) = page(&format!("limit=3&cursor={}", text(&data["nextCursor"]))).await;
    assert_eq!((third, &data["nextCursor"]), (vec!["m1".to_owned()], &Value::Null));
    let (newer, data) = page("limit=2&after=0").await;
    assert_eq!(newer, ["m1", "m2"]);
    let (newer, _) = page(&format!("limit=2&cursor={}", text(&data["nextCursor"]))).await;
    assert_eq!(newer, ["m3", "m4"]);
    let (around, _) = page(&format!("limit=3&around={}", ids[3])).await;
    assert_eq!(around, ["m5", "m4", "m3"]);
    let as_of = data["asOf"].as_i64().unwrap();
    assert_eq!(events(&app, "u-2", &room, as_of).await, Vec::<String>::new());
    ask(&app, "u-2", "GET", &format!("/messages/{room}?limit=0"), None).await.refused(400, "query_invalid");
    app.done().await;
}

/// S2-42, S2-43, S4-34, S4-67, S4-68, S4-69, S4-149: unread counts are differences, and fall when a message is read, up
/// to it or all; a mark never goes back; others see who has read, and when.
#[tokio::test]
async fn messages_are_read_up_to_a_mark() {
    let app = App::with(&["--user-sends=100"]).await;
    let room = group(&app, &["u-1", "u-2", "u-3"], json!({})).await;
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(text(&send(&app, "u-1", &room, &format!("m{n}")).await.expect(201).body["data"]["id"]));
    }
    let unread = async |user: &str| {
        ask(&app, user, "GET", &format!("/chatrooms/{room}"), None).await.expect(200).body["data"]["unreadCount"]
            .clone()
    };
    assert_eq!(unread("u-2").await, 3);
    let mark = async |user: &str, query: String| {
        ask(&app, user, "POST", &format!("/messages/mark-read?{query}"), None).await.expect(200).body["data"].clone()
    };
    assert_eq!(mark("u-2", format!("roomId={room}&messageId={}&requestId=r-1", ids[1])).await["unreadCount"], 1);
    assert_eq!(mark("u-2", format!("messageId={}", ids[0])).await["unreadCount"], 1, "it does not go back");
    let path = format!("/messages/{}", ids[1]);
    let shown = ask(&app, "u-1", "GET", &path, None).await.expect(200).body["data"].clone();
    let two = id_of(&app, "u-2").await;
    assert_eq!(
        (&shown["readBy"], &shown["readCount"], &shown["receipt"]),
        (&json!({&two: true}), &json!(1), &json!("SENT"))
    );
    assert_eq!(mark("u-3", format!("roomId={room}")).await["unreadCount"], 0);
    let shown = ask(&app, "u-1", "GET", &path, None).await.expect(200).body["data"].clone();
    assert_eq!(shown["receipt"], "READ");
    let readers = ask(&app, "u-1", "GET", &format!("{path}/reads"), None).await.expect(200).body["data"].clone();
    assert_eq!(readers.as_array().map(Vec::len), Some(2));
    assert!(readers[0]["readAt"].is_string(), "{readers}");
    let view = "select count(*) from chat_message_read_by_user";
    assert_eq!(app.count(view).await, 5, "u-2 has read two messages, u-3 three");
    // Who writes has read the room up to it.
    assert_eq!(unread("u-1").await, 0);
    send(&app, "u-2", &room, "an answer").await.expect(201);
    assert_eq!((unread("u-1").await, unread("u-2").await, unread("u-3").await), (json!(1), json!(0), json!(1)));
    let path = format!("/messages/{}/reads", ids[2]);
    let readers = ask(&app, "u-1", "GET", &path, None).await.expect(200).body["data"].clone();
    assert_eq!(readers.as_array().map(Vec::len), Some(2), "{readers}");
    assert!(readers[0]["readAt"].is_string() && readers[1]["readAt"].is_string(), "{readers}");
    assert_eq!(app.count(view).await, 6, "u-2 has read the third, too");
    let body = json!({"roomId": room, "userId": two});
    ask(&app, "u-1", "POST", "/messages/mark-read", Some(body)).await.refused(403, "forbidden");
    app.done().await;
}

/// S2-35, S2-20, S2-21, S2-34, S2-79, S4-33, S4-147, S4-148: a sender edits its text and deletes its message; the
/// number stays, the version goes up, and a stale version is refused; an admin deletes another's, which the audit log
/// has. The former text is kept for moderators alone, and gone from the message.
#[tokio::test]
async fn message_is_edited_and_deleted() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let id = text(&send(&app, "u-2", &room, "first").await.expect(201).body["data"]["id"]);
    let path = format!("/messages/{id}");
    let edit = |text: &str| Some(json!({"content": {"text": text}}));
    let edited = ask(&app, "u-2", "PUT", &path, edit("second")).await.expect(200).body["data"].clone();
    assert_eq!(
        (&edited["content"]["text"], &edited["content"]["isEdited"], &edited["version"]),
        (&json!("second"), &json!(true), &json!(2))
    );
    assert_eq!(edited["id"], json!(id));
    ask(&app, "u-1", "PUT", &path, edit("not mine")).await.refused(403, "forbidden");
    let headers = [("x-user", "u-2"), ("if-match", "1")];
    let at = format!("/api/v1{path}");
    let stale = crate::user::ask_with(&app, &app.token, &headers, "PUT", &at, edit("third"));
    stale.await.refused(412, "version_mismatch");
    let deleted = ask(&app, "u-1", "DELETE", &path, None).await.expect(200).body["data"].clone();
    assert_eq!((&deleted["content"]["text"], &deleted["isDeleted"]), (&json!(""), &json!(true)));
    ask(&app, "u-1", "DELETE", &path, None).await.expect(200);
    ask(&app, "u-2", "PUT", &path, edit("again")).await.refused(409, "already_deleted");
    assert_eq!(
        events(&app, "u-1", &room, 0).await,
        ["ROOM_CREATED", "MESSAGE_CREATED", "MESSAGE_EDITED", "MESSAGE_DELETED"]
    );
    assert_eq!(app.count("select count(*) from chat_messages where content like '%second%'").await, 0);
    assert_eq!(app.count("select count(*) from chat_versions where content like '%first%'").await, 1);
    assert_eq!(app.count("select count(*) from audit where action = 'chat_message.delete'").await, 1);
    let old = text(&send(&app, "u-2", &room, "old").await.expect(201).body["data"]["id"]);
    app.advance(25 * 3_600);
    let token = app.fresh_token().await;
    let path = format!("/api/v1/messages/{old}");
    let late = crate::user::ask_with(&app, &token, &[("x-user", "u-2")], "PUT", &path, edit("late"));
    late.await.refused(409, "edit_window_over");
    app.advance(31 * 86_400);
    notihub::flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from chat_versions").await, 0);
    app.done().await;
}

/// S4-25, S4-209: a user and a room write only so fast; in slow mode a member writes one message in so many
/// seconds, whichever process it asks; a closed room takes nothing.
#[tokio::test]
async fn writing_has_its_limits() {
    let app = App::with(&["--user-sends=2"]).await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    for _ in 0..4 {
        send(&app, "u-1", &room, "quick").await.expect(201);
    }
    send(&app, "u-1", &room, "too quick").await.refused(429, "rate_limited");
    send(&app, "u-2", &room, "another").await.expect(201);
    app.advance(10);
    let slow = json!({"settings": {"slowModeSeconds": 30}});
    ask(&app, "u-1", "PUT", &format!("/chatrooms/{room}"), Some(slow)).await.expect(200);
    send(&app, "u-2", &room, "too soon").await.refused(429, "rate_limited");
    app.advance(21);
    send(&app, "u-2", &room, "in time").await.expect(201);
    send(&app, "u-2", &room, "too soon again").await.refused(429, "rate_limited");
    let admins = json!({"settings": {"sendRole": "ADMIN"}});
    ask(&app, "u-1", "PUT", &format!("/chatrooms/{room}"), Some(admins)).await.expect(200);
    app.advance(10);
    send(&app, "u-2", &room, "a member").await.refused(403, "forbidden");
    send(&app, "u-1", &room, "the owner").await.expect(201);
    ask(&app, "u-1", "DELETE", &format!("/chatrooms/{room}?close=true"), None).await.expect(204);
    send(&app, "u-1", &room, "closed").await.refused(409, "room_closed");
    app.done().await;
}

/// S4-55, S2-33, S2-49, S4-54, S4-60, S4-64, S4-65, S4-203: 200 messages of 8 senders into 5 rooms at once are numbered
/// without a gap, and a room's head is its last row; a sender's own messages keep their order.
#[tokio::test]
async fn messages_are_numbered_without_a_gap() {
    let app = App::with(&["--user-sends=1000", "--room-sends=1000"]).await;
    let users = ["u-1", "u-2", "u-3", "u-4", "u-5", "u-6", "u-7", "u-8"];
    let mut rooms = Vec::new();
    for _ in 0..5 {
        rooms.push(group(&app, &users, json!({})).await);
    }
    join_all(users.iter().map(|user| {
        let (app, rooms) = (&app, &rooms);
        async move {
            for n in 0..25 {
                let room = &rooms[n % rooms.len()];
                send(app, user, room, &format!("{user} {n:02}")).await.expect(201);
            }
        }
    }))
    .await;
    let gaps = "select count(*) from room_heads h where h.no <> 40 or h.seq <> 41 or h.last_seq <> h.seq \
        or (select count(distinct no) from chat_messages c where c.room_id = h.room_id and c.no <= 40) <> 40";
    assert_eq!(app.count(gaps).await, 0);
    for room in &rooms {
        let path = format!("/messages/{room}?after=0&limit=100");
        let found = ask(&app, "u-1", "GET", &path, None).await.expect(200).body["data"]["items"].clone();
        for user in users {
            let own: Vec<String> = found
                .as_array()
                .unwrap()
                .iter()
                .map(|item| text(&item["content"]["text"]))
                .filter(|text| text.starts_with(user))
                .collect();
            assert!(own.is_sorted() && own.len() == 5, "{own:?}");
        }
    }
    app.done().await;
}

/// S2-81, S4-176: the texts of an encrypted room are sealed in the database, and read as before; a dump has none of
/// them.
#[tokio::test]
async fn encrypted_room_keeps_its_texts_sealed() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({"encrypted": true})).await;
    let id = text(&send(&app, "u-1", &room, "secret text").await.expect(201).body["data"]["id"]);
    ask(&app, "u-1", "PUT", &format!("/messages/{id}"), Some(json!({"content": "other secret"}))).await.expect(200);
    assert_eq!(texts(&app, "u-2", &room).await, ["other secret"]);
    let open = "select count(*) from chat_messages c, chat_versions v \
        where c.content like '%secret%' or v.content like '%secret%'";
    assert_eq!(app.count(open).await, 0);
    app.done().await;
}

/// In a room of two, the one who was blocked cannot write, and the other can.
#[tokio::test]
async fn blocked_user_cannot_write_to_the_other() {
    let app = App::new().await;
    let (one, two) = (id_of(&app, "u-1").await, id_of(&app, "u-2").await);
    let body = json!({"type": "INDIVIDUAL", "userId": two});
    let room = text(&ask(&app, "u-1", "POST", "/chatrooms", Some(body)).await.expect(201).body["data"]["roomId"]);
    ask(&app, "u-2", "POST", &format!("/users/{one}/block"), None).await.expect(204);
    send(&app, "u-1", &room, "hello?").await.refused(403, "blocked");
    send(&app, "u-2", &room, "no").await.expect(201);
    app.done().await;
}

/// S2-95, S2-39: messages older than the room keeps them are deleted, newer ones stay. When the last one is deleted,
/// numbers go on, and its sender has read it.
#[tokio::test]
async fn room_keeps_its_messages_for_so_many_days() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let other = group(&app, &["u-1", "u-2"], json!({})).await;
    let days = json!({"retentionDays": 2});
    ask(&app, "u-1", "PUT", &format!("/chatrooms/{room}"), Some(days)).await.expect(200);
    for at in [&room, &other] {
        send(&app, "u-1", at, "old").await.expect(201);
    }
    app.advance(3 * 86_400);
    let token = app.fresh_token().await;
    let path = "/api/v1/messages";
    let write = async |token: &str, text: &str| {
        let body = json!({"roomId": room, "content": text});
        let written = crate::user::ask_with(&app, token, &[("x-user", "u-1")], "POST", path, Some(body));
        written.await.expect(201).body["data"]["id"].clone()
    };
    write(&token, "new").await;
    notihub::flow::retain::retain(&app.hub).await.unwrap();
    let kept = "select count(*) from chat_messages where content like '%old%'";
    assert_eq!(app.count(kept).await, 1, "the other room keeps its own");
    assert_eq!(app.count("select count(*) from chat_messages where content like '%new%'").await, 1);
    app.advance(3 * 86_400);
    notihub::flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from chat_messages where content like '%new%'").await, 0);
    let token = app.fresh_token().await;
    let path = format!("/api/v1/chatrooms/{room}");
    let own = crate::user::ask_with(&app, &token, &[("x-user", "u-1")], "GET", &path, None).await.expect(200).body;
    assert_eq!(own["data"]["unreadCount"], 0, "{own}");
    // Made, changed, "old", "new".
    assert_eq!(write(&token, "newest").await, format!("{room}-5"));
    app.done().await;
}

/// S2-81: the erasure of an address reaches rooms: texts that name it, sealed ones too, what an edit replaced, titles,
/// metadata and tempIds.
#[tokio::test]
async fn erasure_of_an_address_reaches_rooms() {
    let app = App::new().await;
    let address = "kim@example.com";
    for encrypted in [false, true] {
        let made = json!({"title": "of kim@example.com", "metadata": {"who": address}, "encrypted": encrypted});
        let room = group(&app, &["u-1", "u-2"], made).await;
        let named = json!({"roomId": room, "tempId": "order-kim@example.com", "content": "write to kim@example.com"});
        let id = text(&ask(&app, "u-1", "POST", "/messages", Some(named)).await.expect(201).body["data"]["id"]);
        let edited = json!({"content": "still kim@example.com"});
        ask(&app, "u-1", "PUT", &format!("/messages/{id}"), Some(edited)).await.expect(200);
        send(&app, "u-1", &room, "another text").await.expect(201);
    }
    let actor = notihub::model::access::principal::Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    let partner_id = Some(app.partner.partner_id);
    let erased = notihub::flow::erase::erase(&app.hub, permit, address, partner_id, |_| ()).await.unwrap();
    assert_eq!((erased.left.len(), erased.unopened), (0, 0), "{:?}", erased.left);
    assert!(!erased.unsearched.iter().any(|table| table.contains("chat") || table == "rooms"), "{erased:?}");
    let rooms = ask(&app, "u-2", "GET", "/chatrooms", None).await.expect(200).body["data"]["items"].clone();
    for room in rooms.as_array().unwrap() {
        assert_eq!(room["metadata"], json!({}));
        assert_eq!(texts(&app, "u-2", &text(&room["roomId"])).await, ["another text", ""]);
    }
    assert!(!rooms.to_string().contains("kim"), "{rooms}");
    app.done().await;
}

/// S2-85, S4-24, S4-69: a change of settings leaves those out as they are that it does not name; who may not write may
/// not edit; a sender has read its own message at once; where receipts are off, members do not see how far others read.
#[tokio::test]
async fn settings_and_silence_hold_for_edits_and_marks() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let path = format!("/chatrooms/{room}");
    let change = async |settings: Value| {
        let changed = ask(&app, "u-1", "PUT", &path, Some(json!({"settings": settings}))).await.expect(200);
        changed.body["data"]["settings"].clone()
    };
    change(json!({"slowModeSeconds": 7, "receipts": false})).await;
    let settings = change(json!({"typing": false})).await;
    assert_eq!((&settings["slowModeSeconds"], &settings["receipts"]), (&json!(7), &json!(false)));
    assert_eq!(settings["typing"], false);
    let id = text(&send(&app, "u-2", &room, "mine").await.expect(201).body["data"]["id"]);
    let shown = ask(&app, "u-2", "GET", &path, None).await.expect(200).body;
    assert_eq!(shown["data"]["unreadCount"], 0, "its mark is written a little later");
    let members = ask(&app, "u-1", "GET", &format!("{path}/participants"), None).await.expect(200).body;
    let two = id_of(&app, "u-2").await;
    for member in members["data"]["items"].as_array().unwrap() {
        assert_eq!(member["readNo"].is_null(), member["userId"] == two, "{member}");
    }
    let until = (app.hub.clock.now() + chrono::TimeDelta::minutes(5)).to_rfc3339();
    let silence = json!({"silencedUntil": until});
    ask(&app, "u-1", "PUT", &format!("{path}/participants/{two}"), Some(silence)).await.expect(200);
    let edit = json!({"content": "abuse"});
    ask(&app, "u-2", "PUT", &format!("/messages/{id}"), Some(edit)).await.refused(403, "silenced");
    app.done().await;
}
