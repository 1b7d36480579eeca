//! Rooms and their members.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::room::{ask, events, group, id_of, send, text};
use crate::support::app::App;
use crate::user::on_behalf;

/// S2-26, S2-23, S2-38, S2-40, S2-62, S4-19, S4-20, S4-21, S4-22, S4-23, S4-130, S4-131, S4-132: a user makes a group
/// and is its owner; its members see it in their lists with title, type, members and when it was last active; a
/// stranger sees nothing. A pair has one room, which both find.
#[tokio::test]
async fn group_and_room_of_two_are_made_and_listed() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2"], json!({"metadata": {"order": 7}})).await;
    let (one, two) = (id_of(&app, "u-1").await, id_of(&app, "u-2").await);
    let own = ask(&app, "u-1", "GET", &format!("/chatrooms/{room}"), None).await.expect(200).body["data"].clone();
    assert_eq!(
        (&own["title"], &own["type"], &own["visibility"]),
        (&json!("Lunch"), &json!("GROUP"), &json!("PRIVATE"))
    );
    assert_eq!((&own["role"], &own["participantCount"], &own["state"]), (&json!("OWNER"), &json!(2), &json!("OPEN")));
    assert_eq!(own["metadata"], json!({"order": 7}));
    let mut participants = [one.clone(), two.clone()];
    participants.sort();
    assert_eq!(own["participants"], json!(participants));
    let theirs = ask(&app, "u-2", "GET", "/chatrooms", None).await.expect(200).body["data"]["items"].clone();
    assert_eq!((&theirs[0]["roomId"], &theirs[0]["role"]), (&json!(room), &json!("MEMBER")));
    ask(&app, "u-3", "GET", &format!("/chatrooms/{room}"), None).await.refused(404, "not_found");
    assert_eq!(ask(&app, "u-3", "GET", "/chatrooms", None).await.expect(200).body["data"]["items"], json!([]));

    let pair = |other: &str| json!({"type": "INDIVIDUAL", "participantIds": [other]});
    let made = ask(&app, "u-1", "POST", "/chatrooms", Some(pair(&two))).await.expect(201).body["data"].clone();
    let found = ask(&app, "u-2", "POST", "/chatrooms", Some(pair(&one))).await.expect(200).body["data"].clone();
    assert_eq!((&made["roomId"], &made["maxParticipants"]), (&found["roomId"], &json!(2)));
    let nickname = ask(&app, "u-1", "GET", "/users/me", None).await.expect(200).body["data"]["nickname"].clone();
    assert_eq!(found["title"], nickname, "the other's");
    let at_once = (0..6).map(|n| {
        let (app, two, one) = (&app, &two, &one);
        async move {
            let (user, other) = if n % 2 == 0 { ("u-3", two) } else { ("u-3", one) };
            text(&ask(app, user, "POST", "/chatrooms", Some(pair(other))).await.body["data"]["roomId"])
        }
    });
    let mut ids: Vec<String> = join_all(at_once).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2, "one room for each pair");
    // The last active room comes first.
    send(&app, "u-2", &room, "hello").await.expect(201);
    let listed = ask(&app, "u-1", "GET", "/chatrooms?limit=1", None).await.expect(200).body["data"].clone();
    assert_eq!(
        (&listed["items"][0]["roomId"], &listed["items"][0]["lastMessageText"]),
        (&json!(room), &json!("hello"))
    );
    let cursor = text(&listed["nextCursor"]);
    let next = ask(&app, "u-1", "GET", &format!("/chatrooms?limit=5&cursor={cursor}"), None).await.expect(200).body;
    let rest: Vec<Value> =
        next["data"]["items"].as_array().unwrap().iter().map(|room| room["roomId"].clone()).collect();
    assert!(rest.contains(&made["roomId"]) && !rest.contains(&json!(room)), "{rest:?}");
    let groups = ask(&app, "u-1", "GET", "/chatrooms?kind=GROUP", None).await.expect(200).body["data"].clone();
    assert_eq!(groups["items"].as_array().map(Vec::len), Some(1));
    app.done().await;
}

/// What is wrong with a room is refused, and nothing is made.
#[tokio::test]
async fn room_that_is_wrong_is_refused() {
    let app = App::new().await;
    let (one, two) = (id_of(&app, "u-1").await, id_of(&app, "u-2").await);
    let make = async |body: Value| ask(&app, "u-1", "POST", "/chatrooms", Some(body)).await;
    let never = app.hub.next_id().to_string();
    make(json!({"type": "GROUP", "participantIds": [never]})).await.refused(422, "user_unknown");
    make(json!({"participantIds": ["kim"]})).await.refused(422, "user_unknown");
    make(json!({"type": "INDIVIDUAL", "participantIds": [one]})).await.refused(422, "participants_invalid");
    make(json!({"type": "INDIVIDUAL"})).await.refused(422, "participants_invalid");
    make(json!({"settings": {"slowMode": 5}})).await.refused(422, "unknown_field");
    make(json!({"settings": {"slowModeSeconds": 3601}})).await.refused(422, "max");
    make(json!({"metadata": {"a": {"b": 1}}})).await.refused(422, "type_mismatch");
    make(json!({"visibility": "OPEN"})).await.refused(422, "enum");
    make(json!({"maxParticipants": 1})).await.refused(422, "min");
    ask(&app, "u-2", "POST", &format!("/users/{one}/block"), None).await.expect(204);
    make(json!({"type": "INDIVIDUAL", "participantIds": [two]})).await.refused(403, "blocked");
    assert_eq!(app.count("select count(*) from rooms").await, 0);
    app.done().await;
}

/// S2-57, S2-17: many users enter the last places of a room at the same moment: as many come in as there are places.
#[tokio::test]
async fn last_places_are_given_once() {
    let app = App::new().await;
    let room = group(&app, &["u-0"], json!({"visibility": "PUBLIC", "maxParticipants": 4})).await;
    let path = format!("/api/channels/{room}/join");
    let users: Vec<String> = (1..=12).map(|n| format!("u-{n}")).collect();
    let entered = join_all(users.iter().map(|user| on_behalf(&app, user, "POST", &path, None))).await;
    let came = entered.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(came, 3, "{:?}", entered.iter().map(|answer| answer.status).collect::<Vec<_>>());
    entered.into_iter().filter(|answer| answer.status != 200).for_each(|answer| {
        answer.refused(409, "room_full");
    });
    assert_eq!(app.count("select count(*) from members where left_at is null").await, 4);
    assert_eq!(app.count("select members::bigint from room_gates").await, 4);
    app.done().await;
}

/// S2-15, S2-25, S2-27, S2-39, S2-94, S4-24, S4-133, S4-135, S4-136, S4-137, S4-172: who may invite, remove, ban and
/// give roles; a removed member sees nothing more, a banned one does not come back; a new member sees what is written
/// from then on.
#[tokio::test]
async fn members_come_and_go_by_their_roles() {
    let app = App::new().await;
    let room =
        group(&app, &["u-1", "u-2"], json!({"visibility": "PUBLIC", "settings": {"joinPolicy": "INVITE"}})).await;
    let (two, three) = (id_of(&app, "u-2").await, id_of(&app, "u-3").await);
    send(&app, "u-1", &room, "before").await.expect(201);
    let at = |end: &str| format!("/chatrooms/{room}{end}");
    let path = format!("/api/channels/{room}/join");
    on_behalf(&app, "u-3", "POST", &path, None).await.refused(403, "not_a_member");
    let came = ask(&app, "u-1", "POST", &at("/participants"), Some(json!({"userIds": [three]}))).await.expect(200).body;
    assert_eq!((&came["data"][0]["userId"], &came["data"][0]["role"]), (&json!(three), &json!("MEMBER")));
    assert_eq!(crate::room::texts(&app, "u-3", &room).await, Vec::<String>::new());
    send(&app, "u-1", &room, "after").await.expect(201);
    assert_eq!(crate::room::texts(&app, "u-3", &room).await, ["after"]);
    let listed = ask(&app, "u-3", "GET", &at("/participants?limit=2"), None).await.expect(200).body["data"].clone();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    let cursor = text(&listed["nextCursor"]);
    let rest = ask(&app, "u-3", "GET", &at(&format!("/participants?cursor={cursor}")), None).await.expect(200).body;
    assert_eq!(rest["data"]["items"].as_array().map(Vec::len), Some(1));

    // The partner's own key may do what an owner may, so users act with their own tokens from here on.
    let key = crate::user::user_key(&app, app.partner.partner_id, 0).await;
    let token = |user: &str| crate::user::subscriber(&app, app.partner.partner_id, &key, user);
    let own = async |user: &str, method: &str, end: &str, body: Option<Value>| {
        app.ask(&token(user), method, &format!("/api/v1{}", at(end)), body).await
    };
    let of = |user: &str| format!("/participants/{user}");
    own("u-2", "DELETE", &of(&three), None).await.refused(403, "forbidden");
    own("u-2", "PUT", &of(&three), Some(json!({"role": "ADMIN"}))).await.refused(403, "forbidden");
    own("u-2", "PUT", "", Some(json!({"title": "Mine"}))).await.refused(403, "forbidden");
    own("u-1", "PUT", &of(&two), Some(json!({"role": "ADMIN"}))).await.expect(200);
    own("u-2", "PUT", "", Some(json!({"title": "Ours"}))).await.expect(200);
    own("u-2", "PUT", "", Some(json!({"retentionDays": 3}))).await.refused(403, "forbidden");
    own("u-2", "DELETE", "?close=true", None).await.refused(403, "forbidden");
    let until = (app.hub.clock.now() + chrono::TimeDelta::minutes(5)).to_rfc3339();
    own("u-2", "PUT", &of(&three), Some(json!({"silencedUntil": until}))).await.expect(200);
    send(&app, "u-3", &room, "no").await.refused(403, "silenced");
    let owner = id_of(&app, "u-1").await;
    own("u-2", "DELETE", &of(&owner), None).await.refused(409, "owner_stays");
    own("u-2", "DELETE", &format!("{}?ban=true", of(&three)), None).await.expect(204);
    own("u-3", "GET", "/participants", None).await.refused(403, "banned");
    send(&app, "u-3", &room, "no").await.refused(403, "banned");
    let again = json!({"userIds": [three]});
    own("u-1", "POST", "/participants", Some(again.clone())).await.refused(403, "banned");
    // An admin lifts the ban.
    own("u-3", "DELETE", &format!("{}?ban=false", of(&three)), None).await.refused(403, "banned");
    own("u-2", "DELETE", &format!("{}?ban=false", of(&three)), None).await.expect(204);
    own("u-2", "DELETE", &format!("{}?ban=false", of(&three)), None).await.refused(404, "not_found");
    own("u-1", "POST", "/participants", Some(again)).await.expect(200);
    own("u-2", "DELETE", &of(&three), None).await.expect(204);
    // The owner hands over, and leaves; the last one closes the room.
    own("u-1", "PUT", &of(&two), Some(json!({"role": "OWNER"}))).await.expect(200);
    assert_eq!(own("u-1", "GET", "", None).await.expect(200).body["data"]["role"], "ADMIN");
    own("u-1", "DELETE", "", None).await.expect(204);
    own("u-2", "DELETE", "", None).await.expect(204);
    assert_eq!(own("u-2", "GET", "", None).await.expect(200).body["data"]["state"], "CLOSED");
    on_behalf(&app, "u-4", "POST", &path, None).await.refused(409, "room_closed");
    let noted = "select count(*) from audit where action in ('member.role', 'member.silence', 'member.ban')";
    assert_eq!(app.count(noted).await, 4);
    app.done().await;
}

/// S2-24, S4-134: the last owner's rights go to the oldest admin, else to the oldest member; a user that is erased
/// leaves its rooms, and what it wrote stays.
#[tokio::test]
async fn room_of_an_owner_who_leaves_has_another() {
    let app = App::new().await;
    let room = group(&app, &["u-1", "u-2", "u-3"], json!({})).await;
    let three = id_of(&app, "u-3").await;
    let pair = json!({"type": "INDIVIDUAL", "userId": three});
    let pair = text(&ask(&app, "u-1", "POST", "/chatrooms", Some(pair)).await.expect(201).body["data"]["roomId"]);
    send(&app, "u-1", &pair, "for u-3").await.expect(201);
    let path = format!("/chatrooms/{room}/participants/{three}");
    ask(&app, "u-1", "PUT", &path, Some(json!({"role": "ADMIN"}))).await.expect(200);
    send(&app, "u-1", &room, "of u-1").await.expect(201);
    app.ask(&app.token, "DELETE", "/v1/users/u-1", None).await.expect(204);
    notihub::flow::erase::erase_users(&app.hub).await.unwrap();
    let shown = ask(&app, "u-3", "GET", &format!("/chatrooms/{room}"), None).await.expect(200).body["data"].clone();
    assert_eq!((&shown["role"], &shown["participantCount"]), (&json!("OWNER"), &json!(2)));
    assert_eq!(crate::room::texts(&app, "u-2", &room).await, ["of u-1"]);
    assert_eq!(crate::room::texts(&app, "u-3", &pair).await, ["for u-3"]);
    send(&app, "u-3", &pair, "too late").await.refused(409, "room_closed");
    ask(&app, "u-3", "DELETE", &format!("/chatrooms/{room}"), None).await.expect(204);
    let shown = ask(&app, "u-2", "GET", &format!("/chatrooms/{room}"), None).await.expect(200).body["data"].clone();
    assert_eq!(shown["role"], "OWNER");
    let told = events(&app, "u-2", &room, 0).await;
    let left = ["MEMBER_LEFT", "MEMBER_CHANGED"];
    let before = ["ROOM_CREATED", "MEMBER_CHANGED", "MESSAGE_CREATED"];
    assert_eq!(told, [before.as_slice(), &left, &left].concat());
    app.done().await;
}

/// A room of two that one has left is cleared and hidden for it, until the other writes.
#[tokio::test]
async fn room_of_two_that_was_left_comes_back_with_a_message() {
    let app = App::new().await;
    let two = id_of(&app, "u-2").await;
    id_of(&app, "u-1").await;
    let body = json!({"type": "INDIVIDUAL", "userId": two});
    let room = text(&ask(&app, "u-1", "POST", "/chatrooms", Some(body)).await.expect(201).body["data"]["roomId"]);
    send(&app, "u-2", &room, "old").await.expect(201);
    ask(&app, "u-1", "DELETE", &format!("/chatrooms/{room}"), None).await.expect(204);
    let listed = async |user: &str| {
        ask(&app, user, "GET", "/chatrooms", None).await.expect(200).body["data"]["items"].as_array().unwrap().len()
    };
    assert_eq!((listed("u-1").await, listed("u-2").await), (0, 1));
    send(&app, "u-2", &room, "new").await.expect(201);
    assert_eq!(listed("u-1").await, 1);
    assert_eq!(crate::room::texts(&app, "u-1", &room).await, ["new"]);
    assert_eq!(crate::room::texts(&app, "u-2", &room).await, ["new", "old"]);
    app.done().await;
}
