//! Streams of rooms: what happened, in order, and nothing to those who are not in the room.

use notihub::store::listen::Topic;
use notihub::worker::{hints, streams};
use serde_json::json;

use crate::inbox::{Live, serve};
use crate::room::{ask, events, group, id_of, send, text};
use crate::support::app::App;
use crate::support::hubs::another;
use crate::user::{subscriber, user_key};

/// S2-32, S2-66, S4-51, S4-56: everything that happens in a room is in its stream, numbered without a gap; an
/// event has its type, version, number, time and the message as it is now. A client that names another epoch begins
/// anew; one that left gets nothing more.
#[tokio::test]
async fn stream_of_a_room_has_everything_in_order() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let three = id_of(&app, "u-3").await;
    send(&app, "u-1", &room, "one").await.expect(201);
    let path = format!("/chatrooms/{room}");
    ask(&app, "u-1", "PUT", &path, Some(json!({"title": "Dinner"}))).await.expect(200);
    ask(&app, "u-1", "POST", &format!("{path}/participants"), Some(json!({"userIds": [three]}))).await.expect(200);
    send(&app, "u-3", &room, "two").await.expect(201);
    let found = ask(&app, "u-1", "GET", &format!("{path}/events?after=0"), None).await.expect(200).body["data"].clone();
    let items = found["items"].as_array().unwrap().clone();
    let types: Vec<&str> = items.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(types, ["ROOM_CREATED", "MESSAGE_CREATED", "ROOM_CHANGED", "MEMBER_JOINED", "MESSAGE_CREATED"]);
    let seqs: Vec<i64> = items.iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert_eq!((seqs, &found["head"]), (vec![1, 2, 3, 4, 5], &json!(5)));
    let event = &items[4];
    assert_eq!(
        (&event["v"], &event["id"], &event["stream"]),
        (&json!(1), &json!(format!("room:{room}:5")), &json!(format!("room:{room}")))
    );
    let data = &event["data"];
    assert_eq!((&data["channelId"], &data["senderId"], &data["content"]), (&json!(room), &json!(three), &json!("two")));
    assert_eq!((&data["messageId"], &data["message"]["content"]["text"]), (&json!(format!("{room}-5")), &json!("two")));
    assert_eq!(items[3]["data"]["userId"], json!(three));
    // A new member gets no message from before.
    assert_eq!(
        events(&app, "u-3", &room, 0).await,
        ["ROOM_CREATED", "ROOM_CHANGED", "MEMBER_JOINED", "MESSAGE_CREATED"]
    );
    let reset = ask(&app, "u-1", "GET", &format!("{path}/events?after=0&epoch=other"), None).await.expect(200).body;
    assert_eq!((&reset["data"]["reset"], &reset["data"]["items"]), (&json!("epoch"), &json!([])));
    let ahead = ask(&app, "u-1", "GET", &format!("{path}/events?after=99"), None).await.expect(200).body;
    assert_eq!(ahead["data"]["reset"], "epoch");
    ask(&app, "u-3", "DELETE", &path, None).await.expect(204);
    ask(&app, "u-3", "GET", &format!("{path}/events?after=0"), None).await.refused(404, "not_found");
    app.done().await;
}

/// S4-70, S4-72, S4-73, S4-168, S4-169, S4-170: over Server-Sent Events a user sees what is unread, its list of rooms,
/// and who has read a message, whichever process others write at and whichever device reads.
#[tokio::test]
async fn lists_of_rooms_and_readers_are_live() {
    let app = App::new().await;
    let other = another(&app).await;
    let there = serve(&other).await;
    for hub in [&app.hub, &other] {
        streams::start_hints(hub);
        streams::start_reading(hub);
        streams::start_live_notes(hub);
        hints::start_listening(hub, vec![Topic::Streams, Topic::Live, Topic::Users, Topic::Echo]);
    }
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let two = id_of(&app, "u-2").await;
    let key = user_key(&app, app.partner.partner_id, 0).await;
    let token = subscriber(&app, app.partner.partner_id, &key, "u-2");
    let get = |path: String| app.http.get(format!("http://{there}/api/v1/sse/{path}")).bearer_auth(&token);
    let mut unread = Live::open(get(format!("unread/{two}"))).await;
    let mut updates = Live::open(get(format!("updates/{two}"))).await;
    assert_eq!(unread.expect("snapshot").await.data, json!({"total": 0, "rooms": {&room: 0}}));
    let rooms = updates.expect("snapshot").await.data;
    assert_eq!(rooms["rooms"][0]["roomId"], json!(room));
    let id = text(&send(&app, "u-1", &room, "Hello").await.expect(201).body["data"]["id"]);
    let news = unread.expect("message").await.data;
    let expected = json!({"roomId": room, "unreadCounts": {&two: 1}, "unreadCount": 1, "total": 1,
        "lastMessage": "Hello"});
    assert_eq!(news, expected);
    let news = updates.expect("message").await.data;
    assert_eq!(news, json!({"roomId": room, "unreadCount": 1, "lastMessage": "Hello"}));
    let mut readers = Live::open(get(format!("read-count/{room}/{id}"))).await;
    let first = readers.expect("message").await.data;
    assert_eq!(first, json!({"roomId": room, "messageId": id, "readCount": 0, "memberCount": 1}));
    ask(&app, "u-2", "POST", &format!("/messages/mark-read?roomId={room}"), None).await.expect(200);
    assert_eq!(unread.expect("message").await.data["unreadCount"], 0);
    assert_eq!(readers.expect("message").await.data["readCount"], 1);
    assert_eq!(readers.next().await, None, "all have read it");
    assert_eq!(updates.expect("message").await.data["unreadCount"], 0);
    let second = group(&app, &["u-1", "u-2"], json!({})).await;
    send(&app, "u-1", &second, "New").await.expect(201);
    let mut heard = updates.expect("message").await.data;
    while heard["unreadCount"] == 0 {
        heard = updates.expect("message").await.data;
    }
    assert_eq!((&heard["roomId"], &heard["lastMessage"]), (&json!(second), &json!("New")));
    ask(&app, "u-1", "DELETE", &format!("/chatrooms/{second}/participants/{two}"), None).await.expect(204);
    while heard["isGone"] != true {
        heard = updates.expect("message").await.data;
    }
    assert_eq!(heard["roomId"], json!(second));
    for path in ["unread", "updates"] {
        let other = app.http.get(app.uri(&format!("/api/v1/sse/{path}/{room}"))).bearer_auth(&token);
        assert_eq!(other.send().await.unwrap().status().as_u16(), 403);
    }
    app.done().await;
}
