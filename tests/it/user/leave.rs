//! Withdrawal and erasure: what is personal goes from every table, and nothing of it comes back.

use notihub::flow;
use notihub::model::access::principal::Actor;
use serde_json::{Value, json};

use crate::support::app::App;
use crate::user::{FAST, PASSWORD, login, me, on_behalf, open_sign_up, refresh, sign_up, subscriber, tokens, user_key};

/// Everything in the tables of users, as text.
async fn of_users(app: &App) -> String {
    let sql = "select coalesce(string_agg(t, ' '), '') from (select u::text from users u union all \
        select c::text from credentials c union all select d::text from devices d union all \
        select b::text from user_blocks b union all \
        select r::text from refresh_tokens r where client_id like 'u.%') a(t)";
    sqlx::query_scalar(sql).fetch_one(&app.db().await).await.unwrap()
}

/// S4-13: a user withdraws with its password: its profile, password, devices, blocks and tokens are gone, its username
/// is free, and others see that it is deleted. A token that the partner's server signed before makes no new user
/// and opens none.
#[tokio::test]
async fn withdrawn_user_leaves_its_id_alone() {
    let app = App::with(&[FAST]).await;
    open_sign_up(&app).await;
    let body = json!({"username": "kim.minsu", "password": PASSWORD, "nickname": "Nickname-of-Kim",
        "email": "kim@example.com", "bio": "Bio-of-Kim"});
    let id = app.ask("", "POST", "/api/v1/auth/signup", Some(body)).await.expect(201).body["data"]["id"].clone();
    let id = id.as_str().unwrap();
    let (access, refresh_token) = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200));
    let device = json!({"platform": "APNS", "token": "abcdef"});
    app.ask(&access, "POST", "/api/v1/users/me/devices", Some(device)).await.expect(201);
    let other = on_behalf(&app, "u-2", "GET", "/api/v1/users/me", None).await.expect(200).body["data"]["id"].clone();
    let block = format!("/api/v1/users/{}/block", other.as_str().unwrap());
    app.ask(&access, "POST", &block, None).await.expect(204);
    on_behalf(&app, "u-2", "POST", &format!("/api/v1/users/{id}/block"), None).await.expect(204);

    let withdraw = async |token: &str, body: Option<Value>| app.ask(token, "DELETE", "/api/v1/users/me", body).await;
    withdraw(&access, None).await.refused(401, "credentials_wrong");
    withdraw(&access, Some(json!({"password": "wrong password"}))).await.refused(401, "credentials_wrong");
    withdraw(&access, Some(json!({"password": PASSWORD}))).await.expect(204);
    me(&app, &access).await.refused(401, "unauthenticated");
    refresh(&app, &refresh_token).await.refused(401, "unauthenticated");
    login(&app, "kim.minsu", PASSWORD).await.refused(401, "credentials_wrong");
    let seen =
        on_behalf(&app, "u-2", "GET", &format!("/api/v1/users/{id}"), None).await.expect(200).body["data"].clone();
    assert_eq!((&seen["isDeleted"], &seen["nickname"], &seen["username"]), (&json!(true), &json!(""), &Value::Null));
    let left = of_users(&app).await;
    for trace in ["kim", "Kim", "$2b$"] {
        assert!(!left.contains(trace), "{trace}: {left}");
    }
    for empty in ["devices", "user_blocks", "credentials", "refresh_tokens where client_id like 'u.%'"] {
        let sql = format!("select count(*) from {empty}");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&app.db().await).await.unwrap();
        assert_eq!(rows, 0, "{empty}");
    }
    sign_up(&app, "kim.minsu").await.expect(201);
    assert_eq!(app.count("select count(*) from audit where action = 'user.withdraw' and role = 'USER'").await, 1);

    // A user of the partner's server needs no password. Its token of before stays void; a later one makes a new user.
    let key = user_key(&app, app.partner.partner_id, 0).await;
    let token = subscriber(&app, app.partner.partner_id, &key, "u-1");
    let before = me(&app, &token).await.expect(200).body["data"]["id"].clone();
    withdraw(&token, None).await.expect(204);
    me(&app, &token).await.refused(401, "unauthenticated");
    app.advance(60);
    me(&app, &token).await.refused(401, "unauthenticated");
    // Nor does it open what the partner makes anew under that id.
    on_behalf(&app, "u-1", "GET", "/api/v1/users/me", None).await.expect(200);
    me(&app, &token).await.refused(401, "unauthenticated");
    let after = me(&app, &subscriber(&app, app.partner.partner_id, &key, "u-1")).await.expect(200);
    assert_ne!(after.body["data"]["id"], before);
    app.advance(3 * 86_400);
    flow::retain::retain(&app.hub).await.unwrap();
    let known = app.count("select count(*) from users where former_external_hash is not null").await;
    assert_eq!(known, 0, "no token of before can be valid any more");
    app.done().await;
}

/// A partner erases its user; and the erasure of an address reaches users: one whom it identifies goes, and from
/// another's words the address alone. The log says that it was done, and nothing of the person.
#[tokio::test]
async fn erasure_reaches_users() {
    let app = App::new().await;
    let put = async |user: &str, body: Value| {
        app.ask(&app.token, "PUT", &format!("/v1/users/{user}"), Some(body)).await.expect(200).body
    };
    put("u-1", json!({"nickname": "Kim", "phone": "010-1234-5678"})).await;
    app.ask(&app.token, "DELETE", "/v1/users/u-1", None).await.expect(204);
    app.ask(&app.token, "DELETE", "/v1/users/u-1", None).await.refused(404, "not_found");
    app.ask(&app.token, "GET", "/v1/users/u-1", None).await.refused(404, "not_found");

    put("u-2", json!({"email": "kim@example.com"})).await;
    put("kim@example.com", json!({"nickname": "Kim"})).await;
    let bio = json!({"bio": "write to kim@example.com"});
    on_behalf(&app, "u-3", "PUT", "/api/v1/users/me", Some(bio)).await.expect(200);
    put("u-4", json!({"email": "lee@example.com"})).await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    let partner_id = Some(app.partner.partner_id);
    let erased = flow::erase::erase(&app.hub, permit, "kim@example.com", partner_id, |_| ()).await.unwrap();
    assert_eq!(erased.left.len(), 0, "{:?}", erased.left);
    let of_users_unsearched =
        ["users", "credentials", "devices"].iter().any(|t| erased.unsearched.contains(&(*t).to_owned()));
    assert!(!of_users_unsearched, "{:?}", erased.unsearched);
    let left = of_users(&app).await;
    assert!(!left.contains("kim@") && left.contains("lee@example.com") && left.contains("u-3"), "{left}");
    let states =
        "select string_agg(coalesce(external_id, '-') || ' ' || state::text, ', ' order by user_id) from users";
    let states: String = sqlx::query_scalar(states).fetch_one(&app.db().await).await.unwrap();
    assert_eq!(states, "- DELETED, - DELETED, - DELETED, u-3 ACTIVE, u-4 ACTIVE");
    let noted: Vec<String> = sqlx::query_scalar("select a::text from audit a where action like 'user.%'")
        .fetch_all(&app.db().await)
        .await
        .unwrap();
    assert_eq!(noted.len(), 3);
    assert!(noted.iter().all(|entry| !entry.contains("Kim") && !entry.contains("example")), "{noted:?}");
    app.done().await;
}

/// S4-13: the in-app messages to a user are erased after it, also with an id that is too short for a search: what was
/// delivered, what waits and what failed. A text that another user got stays for that one, and what is posted later is
/// to a new user.
#[tokio::test]
async fn messages_follow_an_erased_user() {
    let app = App::new().await;
    let later = (app.hub.clock.now() + chrono::TimeDelta::days(1)).to_rfc3339();
    let post = async |to: &str, body: &str, at: Option<&str>| {
        let message =
            json!({"type": "A", "scheduledAt": at, "channels": [{"channel": "INAPP", "to": to, "body": body}]});
        app.post("/v1/messages", message).await.expect(202).body["messageId"].as_str().unwrap().to_owned()
    };
    let got = post("u1", "text of u1", None).await;
    app.work().await;
    let user = app.ask(&app.token, "GET", "/v1/users/u1", None).await.expect(200).body["userId"].clone();
    let by_id = post(user.as_str().unwrap(), "text by userId", None).await;
    let both = json!({"type": "A", "channels": [{"channel": "INAPP", "to": ["u1", "u2"], "body": "text of both"}]});
    app.post("/v1/messages", both).await.expect(202);
    app.work().await;
    let waits = post("u1", "text that waits", Some(&later)).await;
    let canceled = post("u1", "text canceled", Some(&later)).await;
    app.ask(&app.token, "POST", &format!("/v1/messages/{canceled}/cancel"), None).await.expect(200);

    app.ask(&app.token, "DELETE", "/v1/users/u1", None).await.expect(204);
    app.advance(1);
    post("u1", "text of the new u1", None).await;
    assert!(!flow::erase::erase_users(&app.hub).await.unwrap());
    app.work().await;
    for (message, status) in [(got, "COMPLETED"), (by_id, "COMPLETED"), (waits, "CANCELED"), (canceled, "CANCELED")] {
        let shown = app.ask(&app.token, "GET", &format!("/v1/messages/{message}"), None).await.expect(200).body;
        assert_eq!(shown["status"], status, "{shown}");
        assert!(!shown.to_string().contains("text "), "{shown}");
    }
    let bodies = async |user: &str| {
        let items = on_behalf(&app, user, "GET", "/v1/inbox", None).await.expect(200).body["items"].clone();
        let bodies = items.as_array().unwrap().iter().map(|item| item["body"].clone());
        bodies.collect::<Vec<Value>>()
    };
    assert_eq!(bodies("u1").await, ["text of the new u1"]);
    assert_eq!(bodies("u2").await, ["text of both"]);
    let of_u1 = "select count(*) from deliveries where recipient = 'u1'";
    assert_eq!(app.count(of_u1).await, 1);
    assert_eq!(app.count("select count(*) from users where erase_names is not null").await, 0);
    app.done().await;
}
