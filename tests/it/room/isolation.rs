//! Isolation: rooms of another partner, and rooms that one is not in, are answered like rooms that never were.

use serde_json::{Value, json};

use crate::room::{group, send, text};
use crate::support::app::{App, named};
use crate::user::{ask_with, subscriber, user_key};

/// L11: every operation on rooms with the id of a private room, or of a message in it, is answered to a user of another
/// partner, and to one that is not a member, like one that never was; without a token nothing is answered.
#[tokio::test]
async fn room_of_others_is_answered_like_none() {
    let app = App::with(&["--shards=1"]).await;
    let (other, _, other_token) = app.partner(named("other")).await;
    let room = group(&app, &["u-1", "u-2"], json!({})).await;
    let message = text(&send(&app, "u-1", &room, "hello").await.expect(201).body["data"]["id"]);
    ask_with(&app, &other_token, &[("x-user", "u-1")], "GET", "/api/v1/users/me", None).await.expect(200);
    let stranger = subscriber(&app, app.partner.partner_id, &user_key(&app, app.partner.partner_id, 0).await, "u-9");
    let theirs = subscriber(&app, other.partner_id, &user_key(&app, other.partner_id, 0).await, "u-1");
    let document = app.get("/openapi.json").await.expect(200).body;
    let never = app.hub.next_id().to_string();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let tag = operation["tags"][0].as_str().unwrap();
            // A stream of one's own rooms has one's own id.
            let is_own = path.starts_with("/api/v1/sse/u");
            if !["rooms", "channels"].contains(&tag) || !path.contains('{') || is_own {
                continue;
            }
            let method = method.to_uppercase();
            let bodies = |operation: &Value| {
                operation["requestBody"].is_object().then(|| match path.as_str() {
                    path if path.ends_with("/participants") => json!({"userIds": [never]}),
                    path if path.contains("/messages") => json!({"content": "a"}),
                    _ => json!({}),
                })
            };
            let query = if path.ends_with("/events") { "?after=0" } else { "" };
            for id in [&room, &message] {
                let at = |id: &str| {
                    let own_never = id.replace(&room, &never);
                    ["{roomId}", "{channelId}", "{id}", "{userId}"]
                        .iter()
                        .fold(path.clone(), |path, name| path.replace(name, &own_never))
                        + query
                };
                let real = ["{roomId}", "{channelId}", "{id}", "{userId}"]
                    .iter()
                    .fold(path.clone(), |path, name| path.replace(name, id))
                    + query;
                app.ask("", &method, &real, bodies(operation)).await.refused(401, "unauthenticated");
                for token in [&stranger, &theirs] {
                    let like = app.ask(token, &method, &at(id), bodies(operation)).await;
                    let answer = app.ask(token, &method, &real, bodies(operation)).await;
                    assert_eq!(
                        (answer.status, &answer.body["reason"]),
                        (like.status, &like.body["reason"]),
                        "{method} {path}: {} {}",
                        answer.text,
                        like.text
                    );
                    assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
                    assert!(!answer.text.contains("hello"), "{}", answer.text);
                }
                asked += 1;
            }
        }
    }
    assert!(asked >= 30, "the document has gone blind: {asked}");
    assert_eq!(crate::room::texts(&app, "u-2", &room).await, ["hello"]);
    app.done().await;
}
