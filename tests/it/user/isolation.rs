//! Isolation: another partner's users are answered like users that never were.

use notihub::model::access::principal::Actor;
use notihub::model::partner::Partner;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, named};
use crate::user::{ask_with, subscriber, user_key};

/// An answer without what differs between any two.
fn shape(answer: &Answer, id: &str) -> (u16, Value) {
    let mut body = answer.body.clone();
    for own in ["requestId", "timestamp"] {
        body.as_object_mut().map(|fields| fields.remove(own));
    }
    (answer.status, serde_json::from_str(&body.to_string().replace(id, "ID")).unwrap())
}

/// Every operation on users with an id of a user or device in its path, asked with one of another partner, is answered
/// like one that never was; lists have the caller's own alone; and without a token nothing is answered.
#[tokio::test]
async fn user_of_another_partner_is_answered_like_none() {
    let app = App::with(&["--shards=1"]).await;
    let (other, _, other_token) = app.partner(named("other")).await;
    assert_eq!(app.partner.shard, other.shard, "they live together");
    let make = async |token: &str, user: &str| {
        let device = json!({"platform": "FCM", "token": "the-same-token"});
        let headers = [("x-user", user)];
        let path = "/api/v1/users/me/devices";
        let device = ask_with(&app, token, &headers, "POST", path, Some(device)).await.expect(201).body["data"].clone();
        let user =
            ask_with(&app, token, &headers, "GET", "/api/v1/users/me", None).await.expect(200).body["data"].clone();
        (user["id"].as_str().unwrap().to_owned(), device["deviceId"].as_str().unwrap().to_owned())
    };
    // The same names and tokens at both.
    let (own, _) = make(&app.token, "u-1").await;
    let (theirs, their_device) = make(&other_token, "u-1").await;
    assert_ne!(own, theirs);
    let own_token = subscriber(&app, app.partner.partner_id, &user_key(&app, app.partner.partner_id, 0).await, "u-1");
    let document = app.get("/openapi.json").await.expect(200).body;
    let never = app.hub.next_id().to_string();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let tag = operation["tags"][0].as_str().unwrap();
            let id = match path.as_str() {
                _ if !["users", "partner-users"].contains(&tag) => continue,
                path if path.contains("{userId}") || path.contains("{externalId}") => &theirs,
                path if path.contains("{deviceId}") => &their_device,
                _ => continue,
            };
            let token = if tag == "users" { &own_token } else { &app.token };
            // A PUT or a token by an id makes a user of that name: its own partner's.
            let makes = ["putPartnerUser", "makeUserToken"].contains(&operation["operationId"].as_str().unwrap());
            let method = method.to_uppercase();
            let at = |id: &str| {
                ["{userId}", "{externalId}", "{deviceId}"]
                    .iter()
                    .fold(path.clone(), |path, name| path.replace(name, id))
            };
            let body = || operation["requestBody"].is_object().then(|| json!({}));
            app.ask("", &method, &at(id), body()).await.refused(401, "unauthenticated");
            let like = app.ask(token, &method, &at(&never), body()).await;
            let answer = app.ask(token, &method, &at(id), body()).await;
            if makes {
                assert_eq!((answer.status, like.status), (200, 200), "{method} {path}");
                assert!(answer.body["userId"] != json!(theirs), "{method} {path}: {}", answer.text);
            } else {
                assert_eq!(shape(&answer, id), shape(&like, &never), "{method} {path}");
                assert!(like.status == 404 || method == "DELETE", "{method} {path}: {}", like.text);
            }
            asked += 1;
        }
    }
    assert!(asked >= 8, "the document has gone blind: {asked}");
    // Nothing of the other's has changed.
    let headers = [("x-user", "u-1")];
    let devices = ask_with(&app, &other_token, &headers, "GET", "/api/v1/users/me/devices", None).await.expect(200);
    assert_eq!(devices.body["data"][0]["deviceId"], json!(their_device));
    let of = |partner: &Partner| (partner.shard, partner.partner_id);
    let actor = Actor::local_admin("test".into());
    assert!(actor.owner_permit(&other).is_ok());
    let db = app.hub.store.api();
    let (shard, partner_id) = of(&other);
    let listed =
        notihub::store::user::list(db, shard, partner_id, notihub::id::Tsid(i64::MAX), None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|user| user.user_id.to_string()).collect::<Vec<_>>(), [theirs]);
    app.done().await;
}
