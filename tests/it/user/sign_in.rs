//! Sign-up and sign-in with a password, its limits, and the sign-ins that tokens belong to.

use std::time::Duration;

use chrono::TimeDelta;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use notihub::crypt::keyed_hash;
use notihub::model::access::principal::Origin;
use notihub::store::listen::Topic;
use notihub::{flow, worker};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, named};
use crate::support::programs::python;
use crate::support::wait::until;
use crate::user::{FAST, PASSWORD, ask_with, login, me, open_sign_up, refresh, sign_up, subscriber, tokens, user_key};

#[track_caller]
fn enveloped(answer: &Answer) {
    let is_success = answer.status < 300;
    assert_eq!(answer.body["success"], json!(is_success), "{}", answer.text);
    assert!(answer.body["timestamp"].as_str().is_some_and(|at| at.starts_with("2027-03-05T")), "{}", answer.text);
    if is_success {
        assert_eq!((&answer.body["code"], &answer.body["message"]), (&json!("0000"), &Value::Null));
    } else {
        assert_eq!(answer.body["errorCode"], answer.body["code"], "{}", answer.text);
        assert_eq!((&answer.body["message"], &answer.body["data"]), (&answer.body["detail"], &Value::Null));
    }
}

/// S2-9, S2-10, S4-7, S4-12, S4-17, S4-37, S4-39, S4-42, S4-71, S4-113, S4-114, S4-115, S4-171, S4-173: a person signs
/// up and in, gets tokens for an hour and thirty days, and goes on with the refresh token; answers and errors are in
/// the envelope; the password is kept as bcrypt, which another implementation verifies.
#[tokio::test]
async fn person_signs_up_and_in_and_refreshes() {
    let app = App::with(&[FAST]).await;
    let began = app.hub.clock.now();
    let refused = sign_up(&app, "kim.minsu").await.refused(422, "partner_required");
    enveloped(&refused);
    open_sign_up(&app).await;
    let body = json!({"username": "Kim.Minsu", "password": PASSWORD, "nickname": "김민수", "email": "kim@example.com",
        "bio": "안녕", "profileImageUrl": "https://cdn.example.com/k.png"});
    let made = app.ask("", "POST", "/api/v1/auth/signup", Some(body)).await.expect(201);
    enveloped(&made);
    let user = &made.body["data"];
    assert_eq!(
        (&user["username"], &user["nickname"], &user["status"]),
        (&json!("Kim.Minsu"), &json!("김민수"), &json!("OFFLINE"))
    );
    assert_eq!(user["userCode"].as_str().map(str::len), Some(8));
    assert!(!made.text.contains("assword"), "{}", made.text);

    let answer = login(&app, "KIM.MINSU", PASSWORD).await.expect(200);
    enveloped(&answer);
    let (access, refresh_token) = tokens(&answer);
    assert_eq!((&answer.body["data"]["userId"], &answer.body["data"]["expiresIn"]), (&user["id"], &json!(3_600)));
    let payload = BASE64URL_NOPAD.decode(access.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let said = ["aud", "sub", "username", "pid"].map(|name| claims[name].clone());
    let partner_id = json!(app.partner.partner_id.to_string());
    assert_eq!(said, [json!("notihub/user"), user["id"].clone(), json!("Kim.Minsu"), partner_id]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
    assert!(claims["sid"].is_string());
    let own = me(&app, &access).await.expect(200);
    enveloped(&own);
    assert_eq!(own.body["data"]["email"], "kim@example.com");

    // The access token ends; the refresh token gives new ones, also without a body as a bearer token.
    app.advance(3_600);
    let over = me(&app, &access).await.refused(401, "token_expired");
    enveloped(&over);
    let next = tokens(&refresh(&app, &refresh_token).await.expect(200));
    me(&app, &next.0).await.expect(200);
    let third = tokens(&app.ask(&next.1, "POST", "/api/v1/auth/refresh", None).await.expect(200));
    me(&app, &third.0).await.expect(200);
    app.ask("", "POST", "/api/v1/auth/refresh", None).await.refused(401, "unauthenticated");
    enveloped(&app.ask("", "GET", "/api/v1/nowhere", None).await.refused(404, "not_found"));
    app.ask("", "POST", "/api/v1/auth/logout", Some(json!({"refreshToken": third.1}))).await.expect(204);
    me(&app, &third.0).await.refused(401, "unauthenticated");
    refresh(&app, &third.1).await.refused(401, "unauthenticated");

    let hash: String =
        sqlx::query_scalar("select password_hash from credentials").fetch_one(&app.db().await).await.unwrap();
    assert!(hash.starts_with("$2b$10$"), "{hash}");
    let hashed = BASE64.encode(&keyed_hash(&app.hub.pepper, PASSWORD.as_bytes()));
    let code = "import sys, bcrypt; print(bcrypt.checkpw(sys.argv[1].encode(), sys.argv[2].encode()))";
    let run = tokio::process::Command::new(python("bcrypt")).args(["-c", code, &hashed, &hash]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), "True", "{}", String::from_utf8_lossy(&run.stderr));
    assert!(app.hub.clock.now() > began);
    app.done().await;
}

/// Sign-ups are refused where a partner takes none, and with names and passwords that are taken, wrong or weak; two of
/// one name at the same moment are one.
#[tokio::test]
async fn sign_up_that_is_wrong_is_refused() {
    let app = App::with(&[FAST]).await;
    let (closed, _, _) = app.partner(named("closed")).await;
    open_sign_up(&app).await;
    let (one, two) = tokio::join!(sign_up(&app, "kim.minsu"), sign_up(&app, "KIM.minsu"));
    let statuses = [one.status, two.status];
    assert!(statuses == [201, 409] || statuses == [409, 201], "{statuses:?}");
    sign_up(&app, "kim.Minsu").await.refused(409, "username_taken");
    let post = async |partner: Option<&str>, username: &str, password: &str, nickname: &str| {
        let body = json!({"username": username, "password": password, "nickname": nickname});
        let headers: Vec<(&str, &str)> = partner.into_iter().map(|name| ("x-partner", name)).collect();
        ask_with(&app, "", &headers, "POST", "/api/v1/auth/signup", Some(body)).await
    };
    let closed_id = closed.partner_id.to_string();
    for partner in ["closed", &closed_id, "nobody", "notihub"] {
        post(Some(partner), "lee.younghee", PASSWORD, "Lee").await.refused(403, "sign_up_closed");
        let body = json!({"username": "kim.minsu", "password": PASSWORD});
        let asked = ask_with(&app, "", &[("x-partner", partner)], "POST", "/api/v1/auth/login", Some(body)).await;
        asked.refused(401, "credentials_wrong");
    }
    for username in ["ab", "kim minsu", "김민수", &"x".repeat(31), "a/b"] {
        let answer = post(None, username, PASSWORD, "Kim").await;
        assert_eq!(answer.status, 422, "{username}: {}", answer.text);
    }
    for password in ["short", "Password1", "lee.younghee", "baseball"] {
        post(None, "lee.younghee", password, "Lee").await.refused(422, "password_weak");
    }
    post(None, "lee.younghee", &"x".repeat(129), "Lee").await.refused(422, "content_too_long");
    post(None, "lee.younghee", PASSWORD, "").await.refused(422, "empty");
    post(None, "lee.younghee", PASSWORD, &"가".repeat(31)).await.refused(422, "content_too_long");
    post(Some("test"), "lee.younghee", PASSWORD, "Lee").await.expect(201);
    assert_eq!(app.count("select count(*) from users").await, 2);
    app.done().await;
}

/// S4-177, S4-179: after five failures in a row a user waits, also for the right password and in another process, twice
/// as long after each further one; a success ends it; unknown names are answered alike. The audit log and a metric
/// tell.
#[tokio::test]
async fn failed_sign_ins_make_a_user_wait() {
    let app = App::with(&[FAST]).await;
    open_sign_up(&app).await;
    sign_up(&app, "kim.minsu").await.expect(201);
    for _ in 0..5 {
        login(&app, "kim.minsu", "wrong password").await.refused(401, "credentials_wrong");
        login(&app, "nobody", "wrong password").await.refused(401, "credentials_wrong");
    }
    let limited = login(&app, "kim.minsu", PASSWORD).await.refused(429, "sign_in_limited");
    assert_eq!(limited.header("retry-after"), "1");
    let process = app.another_process().await;
    let there = async |password: &str| {
        let from = Origin::default();
        flow::user::sign_in::sign_in(&process, None, "kim.minsu", password.into(), &from).await.map(|t| t.expires_in_s)
    };
    let refused = there(PASSWORD).await.unwrap_err();
    assert!(matches!(refused, notihub::error::Error::Limited { .. }), "{refused}");
    app.advance(1);
    assert!(there("wrong password").await.is_err());
    let limited = login(&app, "kim.minsu", PASSWORD).await.refused(429, "sign_in_limited");
    assert_eq!(limited.header("retry-after"), "2");
    app.advance(2);
    assert_eq!(there(PASSWORD).await.unwrap(), 3_600);
    assert_eq!(app.count("select failures::bigint from credentials").await, 0);
    login(&app, "kim.minsu", PASSWORD).await.expect(200);
    let noted = app.count("select count(*) from audit where action = 'user.sign_in_limited' and role = 'USER'").await;
    assert_eq!(noted, 2);
    let metrics = app.metrics().await.text;
    assert!(metrics.contains("notihub_user_sign_ins_total{result=\"refused\"} 10"), "{metrics}");
    // Ten failures of a name in one process within a minute.
    for _ in 0..5 {
        login(&app, "nobody", "wrong password").await.refused(401, "credentials_wrong");
    }
    login(&app, "nobody", PASSWORD).await.refused(429, "sign_in_limited");
    process.shutdown.stop();
    assert!(process.shutdown.drained(Duration::from_secs(20)).await);
    process.store.close().await;
    app.done().await;
}

/// S4-18, S4-179: a user's refresh token is good once; used again later than its owner's race, it ends the sign-in with
/// its access tokens, the audit log has it, and operators get one alert. Other sign-ins of the user go on.
#[tokio::test]
async fn refresh_token_used_twice_ends_its_sign_in() {
    let app = App::with(&[FAST, "--alert-slack=ops"]).await;
    open_sign_up(&app).await;
    sign_up(&app, "kim.minsu").await.expect(201);
    let stolen = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200));
    let other = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200));
    let next = tokens(&refresh(&app, &stolen.1).await.expect(200));
    refresh(&app, &stolen.1).await.refused(401, "unauthenticated");
    me(&app, &next.0).await.expect(200);
    app.advance(2);
    refresh(&app, &stolen.1).await.refused(401, "unauthenticated");
    for token in [&stolen.0, &next.0] {
        me(&app, token).await.refused(401, "unauthenticated");
    }
    refresh(&app, &next.1).await.refused(401, "unauthenticated");
    me(&app, &other.0).await.expect(200);
    let kept = refresh(&app, &other.1).await.expect(200);
    me(&app, &tokens(&kept).0).await.expect(200);
    assert_eq!(
        app.count("select count(*) from audit where action = 'refresh_token.reused' and role = 'USER'").await,
        1
    );
    app.settle_all().await;
    let alerts: Vec<String> = app.slack.records().into_iter().filter_map(|post| post.text).collect();
    assert_eq!(alerts.len(), 1);
    assert!(
        alerts[0].contains("A refresh token was used twice") && alerts[0].contains("of partner test"),
        "{alerts:?}"
    );
    app.done().await;
}

/// S2-56, S4-179: a sign-out everywhere, a block and a new password void all tokens of a user, those of its partner's
/// server too. A process that listens follows at the notice, and one that hears nothing within ten seconds.
#[tokio::test]
async fn sign_out_everywhere_holds_in_every_process() {
    let app = App::with(&[FAST]).await;
    open_sign_up(&app).await;
    let partner_id = app.partner.partner_id;
    let key = user_key(&app, partner_id, 0).await;
    let id = sign_up(&app, "kim.minsu").await.expect(201).body["data"]["id"].as_str().unwrap().to_owned();
    let (listening, deaf) = (app.another_process().await, app.another_process().await);
    worker::hints::start_listening(&listening, vec![Topic::Users, Topic::Echo]);
    let there = async |hub: &notihub::hub::Hub, token: &str| {
        flow::user::access::by_token(hub, token, Origin::default()).await.is_ok()
    };
    let (access, refresh_token) = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200));
    let other = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200)).0;
    for token in [&access, &other] {
        assert!(there(&listening, token).await && there(&deaf, token).await);
    }
    // The listener works: it forgets the user at a notice.
    let body = json!({"refreshToken": refresh_token, "everywhere": true});
    app.ask("", "POST", "/api/v1/auth/logout", Some(body)).await.expect(204);
    me(&app, &access).await.refused(401, "unauthenticated");
    me(&app, &other).await.refused(401, "unauthenticated");
    until("the notice arrives", async || !there(&listening, &access).await && !there(&listening, &other).await).await;
    assert!(there(&deaf, &other).await, "it heard nothing");
    app.advance(11);
    assert!(!there(&deaf, &other).await && !there(&deaf, &access).await);

    // A block ends what is signed in, and what the partner's server signed before, in the same second too.
    app.ask(&app.token, "PUT", "/v1/users/u-1", Some(json!({"nickname": "U"}))).await.expect(200);
    let subscribed = subscriber(&app, partner_id, &key, "u-1");
    let made = app.ask(&app.token, "POST", "/v1/users/u-1/token", None).await.expect(200).body["accessToken"].clone();
    let made = made.as_str().unwrap();
    me(&app, &subscribed).await.expect(200);
    me(&app, made).await.expect(200);
    let block = |state: &str| Some(json!({"state": state}));
    app.hub.clock.advance(TimeDelta::milliseconds(500));
    app.ask(&app.token, "PUT", "/v1/users/u-1", block("BLOCKED")).await.expect(200);
    me(&app, &subscribed).await.refused(403, "user_blocked");
    me(&app, made).await.refused(403, "user_blocked");
    app.ask(&app.token, "POST", "/v1/users/u-1/token", None).await.refused(403, "user_blocked");
    app.ask(&app.token, "PUT", "/v1/users/u-1", block("ACTIVE")).await.expect(200);
    me(&app, &subscribed).await.refused(401, "unauthenticated");
    me(&app, made).await.refused(401, "unauthenticated");
    let again = app.ask(&app.token, "POST", "/v1/users/u-1/token", None).await.expect(200).body["accessToken"].clone();
    me(&app, again.as_str().unwrap()).await.expect(200);

    // A new password ends them, too; the old one is no longer right.
    let (access, _) = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200));
    let change = |password: &str| Some(json!({"password": password, "newPassword": "another horse battery"}));
    let put = async |token: &str, body| app.ask(token, "PUT", "/api/v1/users/me/password", body).await;
    put(&access, change("wrong password")).await.refused(401, "credentials_wrong");
    put(&access, change(PASSWORD)).await.expect(200);
    me(&app, &access).await.refused(401, "unauthenticated");
    login(&app, "kim.minsu", PASSWORD).await.refused(401, "credentials_wrong");
    let (access, _) = tokens(&login(&app, "kim.minsu", "another horse battery").await.expect(200));
    me(&app, &access).await.expect(200);
    app.ask(&app.token, "PUT", &format!("/v1/users/{id}"), block("BLOCKED")).await.expect(200);
    login(&app, "kim.minsu", "another horse battery").await.refused(403, "user_blocked");
    for (action, role) in [("user.signed_out", "USER"), ("user.block", "PARTNER"), ("user.password", "USER")] {
        let sql = format!("select count(*) from audit where action = '{action}' and role = '{role}'");
        let noted: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&app.db().await).await.unwrap();
        assert!(noted > 0, "{action}");
    }
    for hub in [listening, deaf] {
        hub.shutdown.stop();
        assert!(hub.shutdown.drained(Duration::from_secs(20)).await);
        hub.store.close().await;
    }
    app.done().await;
}
