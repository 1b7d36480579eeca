//! Profiles, blocks, devices, and the limit of a user's requests.

use serde_json::{Value, json};

use crate::support::app::App;
use crate::user::{me, on_behalf, subscriber, user_key};

/// S4-8, S4-9, S4-10, S4-11, S4-116, S4-117, S4-118, S4-119, S4-120, S4-121: a user reads and changes its profile,
/// images and status; others see what is public of it, and when it was last seen.
#[tokio::test]
async fn profile_is_changed_by_its_user_and_seen_by_others() {
    let app = App::new().await;
    let key = user_key(&app, app.partner.partner_id, 0).await;
    let token = subscriber(&app, app.partner.partner_id, &key, "u-1");
    let put = async |path: &str, body: Value| app.ask(&token, "PUT", path, Some(body)).await;
    let change = json!({"nickname": "Kim", "bio": "two\nlines", "email": "kim@example.com", "phone": "010-1234-5678",
        "locale": "ko-KR", "timeZone": "Asia/Seoul"});
    let user = put("/api/v1/users/me", change).await.expect(200).body["data"].clone();
    let told = ["nickname", "bio", "email", "phone", "locale", "timeZone"].map(|name| user[name].clone());
    let wanted = ["Kim", "two\nlines", "kim@example.com", "+821012345678", "ko-KR", "Asia/Seoul"].map(Value::from);
    assert_eq!(told, wanted);
    let user = put("/api/v1/users/me", json!({"bio": null, "phone": null})).await.expect(200).body["data"].clone();
    assert_eq!((&user["bio"], &user["phone"], &user["nickname"]), (&Value::Null, &Value::Null, &json!("Kim")));
    for (body, reason) in [
        (json!({"nickname": null, "x": 1}), "unknown_field"),
        (json!({"email": "kim"}), "recipient_invalid"),
        (json!({"phone": "12"}), "phone_invalid"),
        (json!({"timeZone": "Asia/Nowhere"}), "tz_unknown"),
        (json!({"nickname": "x".repeat(31)}), "content_too_long"),
    ] {
        put("/api/v1/users/me", body).await.refused(422, reason);
    }

    let image = json!({"imageUrl": "https://cdn.example.com/a.png"});
    let user = put("/api/v1/users/me/profile-image", image.clone()).await.expect(200).body["data"].clone();
    assert_eq!(user["profileImageUrl"], image["imageUrl"]);
    let image = json!({"backgroundImageUrl": "https://cdn.example.com/b.png"});
    let user = put("/api/v1/users/me/background-image", image.clone()).await.expect(200).body["data"].clone();
    assert_eq!(user["backgroundImageUrl"], image["backgroundImageUrl"]);
    let user = put("/api/v1/users/me/background-image", json!({"imageUrl": null})).await.expect(200);
    assert_eq!(user.body["data"]["backgroundImageUrl"], Value::Null);
    put("/api/v1/users/me/profile-image", json!({"imageUrl": "http://a.example/"}))
        .await
        .refused(422, "image_url_invalid");
    put("/api/v1/users/me/profile-image", json!({})).await.refused(422, "required");

    let id = user.body["data"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/users/{id}");
    let seen = on_behalf(&app, "u-2", "GET", &path, None).await.expect(200).body["data"].clone();
    assert_eq!((&seen["nickname"], &seen["status"]), (&json!("Kim"), &json!("OFFLINE")));
    assert_eq!(seen["lastSeenAt"], json!("2027-03-05T00:30:00.000000Z"));
    for private in ["email", "phone", "userCode", "timeZone", "locale", "createdAt"] {
        assert!(seen.get(private).is_none(), "{private}: {seen}");
    }
    connect_all(&app).await;
    for status in ["ONLINE", "AWAY", "BUSY", "OFFLINE"] {
        assert_eq!(
            put("/api/v1/users/status", json!({"status": status})).await.expect(200).body["data"]["status"],
            status
        );
        let seen = on_behalf(&app, "u-2", "GET", &path, None).await.expect(200);
        assert_eq!(seen.body["data"]["status"], status);
    }
    // Invisible, its last time stands still; shown as it is, it is seen again, once a minute.
    app.advance(120);
    me(&app, &token).await.expect(200);
    let last_seen = async || on_behalf(&app, "u-2", "GET", &path, None).await.body["data"]["lastSeenAt"].clone();
    assert_eq!(last_seen().await, json!("2027-03-05T00:30:00.000000Z"));
    put("/api/v1/users/status", json!({"status": null})).await.expect(200);
    me(&app, &token).await.expect(200);
    assert_eq!(last_seen().await, json!("2027-03-05T00:32:00.000000Z"));
    app.advance(30);
    me(&app, &token).await.expect(200);
    assert_eq!(last_seen().await, json!("2027-03-05T00:32:00.000000Z"), "not more than once a minute");
    put("/api/v1/users/status", json!({"status": "GONE"})).await.refused(422, "enum");
    put("/api/v1/users/status", json!({})).await.refused(422, "required");
    app.done().await;
}

/// Every user has a connection at another process, for an hour.
async fn connect_all(app: &App) {
    let connect = "with process as (insert into live_processes (process_id, seen_at) \
        values (1, $1 + interval '1 hour')) \
        insert into connections (connection_id, shard, user_id, process_id, kind, opened_at) \
        select row_number() over (), shard, user_id, 1, 1, $1 from users";
    sqlx::query(connect).bind(app.hub.clock.now()).execute(&app.db().await).await.unwrap();
}

/// S4-17: a user blocks another and unblocks it; the blocked one sees it as OFFLINE. Codes of users differ.
#[tokio::test]
async fn blocked_user_sees_the_other_offline() {
    let app = App::new().await;
    let id = async |name: &str| {
        on_behalf(&app, name, "GET", "/api/v1/users/me", None).await.expect(200).body["data"].clone()
    };
    let (one, two) = (id("u-1").await, id("u-2").await);
    connect_all(&app).await;
    assert_ne!(one["userCode"], two["userCode"]);
    let path = |user: &Value, rest: &str| format!("/api/v1/users/{}{rest}", user["id"].as_str().unwrap());
    on_behalf(&app, "u-1", "PUT", "/api/v1/users/status", Some(json!({"status": "ONLINE"}))).await.expect(200);
    for _ in 0..2 {
        on_behalf(&app, "u-1", "POST", &path(&two, "/block"), None).await.expect(204);
    }
    on_behalf(&app, "u-1", "POST", &path(&one, "/block"), None).await.refused(422, "block_of_oneself");
    on_behalf(&app, "u-1", "POST", "/api/v1/users/0000000000000/block", None).await.refused(404, "not_found");
    let seen =
        async || on_behalf(&app, "u-2", "GET", &path(&one, ""), None).await.expect(200).body["data"]["status"].clone();
    assert_eq!(seen().await, "OFFLINE");
    for n in 3..6 {
        let other = id(&format!("u-{n}")).await;
        on_behalf(&app, "u-1", "POST", &path(&other, "/block"), None).await.expect(204);
    }
    let (mut blocked, mut cursor) = (Vec::new(), String::new());
    loop {
        let list = format!("/api/v1/users/blocks?limit=3{cursor}");
        let page = on_behalf(&app, "u-1", "GET", &list, None).await.expect(200).body["data"].clone();
        blocked.extend(page["items"].as_array().unwrap().iter().map(|user| user["nickname"].clone()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(blocked, ["u-5", "u-4", "u-3", "u-2"]);
    let theirs = on_behalf(&app, "u-2", "GET", &format!("/api/v1/users/blocks?limit=3{cursor}"), None).await;
    theirs.refused(400, "cursor_invalid");
    on_behalf(&app, "u-1", "DELETE", &path(&two, "/block"), None).await.expect(204);
    assert_eq!(seen().await, "ONLINE");
    app.done().await;
}

/// A device is registered once, moves with its token to another user, is listed without its token, and the twenty-first
/// takes the place of the oldest. Its token is sealed.
#[tokio::test]
async fn device_moves_with_its_token() {
    let app = App::new().await;
    let register = async |user: &str, token: &str| {
        let body = json!({"platform": "FCM", "token": token, "app": "shop"});
        on_behalf(&app, user, "POST", "/api/v1/users/me/devices", Some(body)).await
    };
    let list = async |user: &str| {
        let answer = on_behalf(&app, user, "GET", "/api/v1/users/me/devices", None).await.expect(200);
        assert!(!answer.text.contains("token-of-a-phone"), "{}", answer.text);
        answer.body["data"].as_array().unwrap().clone()
    };
    let first = register("u-1", "token-of-a-phone").await.expect(201).body["data"].clone();
    let again = register("u-1", "token-of-a-phone").await.expect(201).body["data"].clone();
    assert_eq!(first, again, "the same token is the same device");
    register("u-2", "token-of-a-phone").await.expect(201);
    assert_eq!((list("u-1").await.len(), list("u-2").await.len()), (0, 1));
    for n in 0..21 {
        register("u-1", &format!("token-of-a-phone-{n}")).await.expect(201);
    }
    let devices = list("u-1").await;
    assert_eq!(devices.len(), 20);
    let path = format!("/api/v1/users/me/devices/{}", devices[0]["deviceId"].as_str().unwrap());
    on_behalf(&app, "u-2", "DELETE", &path, None).await.refused(404, "not_found");
    on_behalf(&app, "u-1", "DELETE", &path, None).await.expect(204);
    on_behalf(&app, "u-1", "DELETE", &path, None).await.refused(404, "not_found");
    for (platform, token) in [("FCM", "a b"), ("WEBPUSH", "x"), ("APNS", "é")] {
        let body = json!({"platform": platform, "token": token});
        let answer = on_behalf(&app, "u-1", "POST", "/api/v1/users/me/devices", Some(body)).await;
        answer.refused(422, "device_token_invalid");
    }
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select token from devices").fetch_all(&app.db().await).await.unwrap();
    assert_eq!(stored.len(), 20);
    assert!(stored.iter().all(|token| !String::from_utf8_lossy(token).contains("phone")));
    app.done().await;
}

/// S2-82: a user may make so many requests a second and no more; others are not slowed by it.
#[tokio::test]
async fn request_beyond_a_users_limit_is_refused() {
    let app = App::new().await;
    let key = user_key(&app, app.partner.partner_id, 0).await;
    let token = |sub: &str| subscriber(&app, app.partner.partner_id, &key, sub);
    let (one, other) = (token("u-1"), token("u-2"));
    for _ in 0..notihub::limits::USER_REQUESTS_BURST {
        me(&app, &one).await.expect(200);
    }
    let refused = me(&app, &one).await.refused(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "1");
    me(&app, &other).await.expect(200);
    app.advance(1);
    me(&app, &one).await.expect(200);
    app.done().await;
}
