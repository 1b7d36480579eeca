//! The doors: a partner's server signs a token, or acts on behalf of its user; no kind of token is taken for another.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use notihub::flow::user::make::find_or_create;
use notihub::model::access::role::StaffRole;
use notihub::store::user::WantedUser;
use serde_json::{Value, json};

use crate::support::app::{App, named};
use crate::support::programs::{is_there, node_library, python};
use crate::user::{
    FAST, PASSWORD, ask_with, claims, jwt, login, me, on_behalf, open_sign_up, refresh, sign_up, subscriber, tokens,
    user_key,
};

/// S2-7, S2-8, S2-11, S4-38: the first token that a partner's server signs makes its user; the same user is reached by
/// the partner's own token with X-User and by a token that the partner asks for; what the token says is taken over.
#[tokio::test]
async fn user_is_the_same_through_each_door() {
    let app = App::new().await;
    let partner_id = app.partner.partner_id;
    let key = user_key(&app, partner_id, 0).await;
    let mut said = claims(&app, partner_id, "u-1");
    said["picture"] = json!("https://cdn.example.com/u-1.png");
    said["locale"] = json!("ko");
    said["further"] = json!({"claims": "are ignored"});
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": key.kid});
    let first = me(&app, &jwt(&header, &said, &key.key)).await.expect(200).body["data"].clone();
    assert_eq!(
        (&first["externalId"], &first["nickname"], &first["profileImageUrl"], &first["locale"], &first["status"]),
        (&json!("u-1"), &json!("u-1"), &said["picture"], &json!("ko"), &json!("OFFLINE"))
    );
    let id = first["id"].as_str().unwrap();

    said["nickname"] = json!("김민수");
    let renamed = me(&app, &jwt(&header, &said, &key.key)).await.expect(200);
    assert_eq!((&renamed.body["data"]["id"], &renamed.body["data"]["nickname"]), (&json!(id), &json!("김민수")));

    for name in ["u-1", id] {
        let asked = on_behalf(&app, name, "GET", "/api/v1/users/me", None).await.expect(200);
        assert_eq!((&asked.body["data"]["id"], &asked.body["data"]["nickname"]), (&json!(id), &json!("김민수")));
        assert!(!asked.header("ratelimit-remaining").is_empty(), "it counts against the partner's limit");
        let made = app.ask(&app.token, "POST", &format!("/v1/users/{name}/token"), None).await.expect(200).body;
        assert_eq!((&made["userId"], &made["expiresIn"]), (&json!(id), &json!(3_600)));
        let asked = me(&app, made["accessToken"].as_str().unwrap()).await.expect(200);
        assert_eq!(asked.body["data"]["id"], json!(id));
        assert_eq!(app.ask(&app.token, "GET", &format!("/v1/users/{name}"), None).await.expect(200).body["userId"], id);
    }
    // Named for the first time on behalf, in UTF-8.
    let asked = on_behalf(&app, "이영희", "GET", "/api/v1/users/me", None).await.expect(200);
    assert_eq!(asked.body["data"]["externalId"], "이영희");
    assert_eq!(app.count("select count(*) from users").await, 2);
    app.done().await;
}

/// S2-7, S4-38: a client's, a user's and a subscriber token are taken for what they are alone, and a subscriber token
/// with any fault not at all.
#[tokio::test]
async fn token_of_one_kind_is_not_taken_for_another() {
    let app = App::with(&[FAST]).await;
    let partner_id = app.partner.partner_id;
    let key = user_key(&app, partner_id, 0).await;
    let (other, _, other_token) = app.partner(named("other")).await;
    let other_key = user_key(&app, other.partner_id, 0).await;
    open_sign_up(&app).await;
    sign_up(&app, "kim.minsu").await.expect(201);
    let (access, refresh_token) = tokens(&login(&app, "kim.minsu", PASSWORD).await.expect(200));
    let good = subscriber(&app, partner_id, &key, "u-1");
    me(&app, &good).await.expect(200);

    // A client's token opens nothing of users, and a user's nothing of a partner.
    let refused = me(&app, &app.token).await.refused(403, "forbidden");
    assert!(refused.text.contains("X-User"), "{}", refused.text);
    let operator = app.staff(StaffRole::Operator).await;
    ask_with(&app, &operator, &[("x-user", "u-1")], "GET", "/api/v1/users/me", None).await.refused(403, "forbidden");
    for (method, path) in
        [("GET", "/v1/messages"), ("GET", "/v1/webhooks"), ("GET", "/v1/users/u-1"), ("GET", "/about")]
    {
        for token in [&access, &good] {
            app.ask(token, method, path, None).await.refused(403, "forbidden");
        }
    }
    for token in [&access, &good] {
        let asked = ask_with(&app, token, &[("x-user", "u-1")], "GET", "/api/v1/users/me", None).await;
        asked.refused(403, "forbidden");
    }
    let body = json!({"refreshToken": refresh_token});
    app.ask("", "POST", "/v1/auth/refresh", Some(body.clone())).await.refused(401, "unauthenticated");
    app.ask("", "POST", "/v1/auth/revoke", Some(body)).await.expect(204);
    let credentials = json!({"clientId": app.credentials.client_id, "clientSecret": app.credentials.client_secret});
    let of_client =
        app.ask("", "POST", "/v1/auth/token", Some(credentials)).await.expect(200).body["refreshToken"].clone();
    refresh(&app, of_client.as_str().unwrap()).await.refused(401, "unauthenticated");
    refresh(&app, &refresh_token).await.expect(200);

    // The header X-User: once; an empty one is none.
    let twice = [("x-user", "u-1"), ("x-user", "u-1")];
    ask_with(&app, &app.token, &twice, "GET", "/api/v1/users/me", None).await.refused(400, "header_unreadable");
    ask_with(&app, &app.token, &[("x-user", "")], "GET", "/api/v1/users/me", None).await.refused(403, "forbidden");
    on_behalf(&app, &"x".repeat(129), "GET", "/api/v1/users/me", None).await.refused(404, "not_found");
    // Another partner's user id is no name of a user, so a user of that name is made.
    let id = me(&app, &good).await.expect(200).body["data"]["id"].as_str().unwrap().to_owned();
    let theirs = ask_with(&app, &other_token, &[("x-user", &id)], "GET", "/api/v1/users/me", None).await.expect(200);
    assert_ne!(theirs.body["data"]["id"], json!(id));
    assert_eq!(theirs.body["data"]["externalId"], json!(id));

    let now = app.hub.clock.now().timestamp();
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": key.kid});
    let set = |value: &Value, name: &str, to: Value| {
        let mut value = value.clone();
        value[name] = to;
        value
    };
    let of = claims(&app, partner_id, "u-2");
    let faults = [
        ("alg", set(&header, "alg", json!("none")), of.clone()),
        ("alg", set(&header, "alg", json!("HS512")), of.clone()),
        ("typ", set(&header, "typ", json!("at+jwt")), of.clone()),
        ("embedded key", set(&header, "jwk", json!({"kty": "oct"})), of.clone()),
        ("kid of another key", set(&header, "kid", json!(format!("u.{partner_id}.7"))), of.clone()),
        ("kid of another partner", set(&header, "kid", json!(other_key.kid)), of.clone()),
        ("kid of no partner", set(&header, "kid", json!("u.0000000000000.1")), of.clone()),
        ("iss", header.clone(), set(&of, "iss", json!(other.partner_id.to_string()))),
        ("iss", header.clone(), set(&of, "iss", json!("notihub"))),
        ("aud", header.clone(), set(&of, "aud", json!("notihub/api"))),
        ("aud", header.clone(), set(&of, "aud", json!(null))),
        ("sub", header.clone(), set(&of, "sub", json!(""))),
        ("sub", header.clone(), set(&of, "sub", json!("a\nb"))),
        ("sub", header.clone(), set(&of, "sub", json!(1))),
        ("longer than a day", header.clone(), set(&of, "exp", json!(now + 86_401))),
        ("ends before it begins", header.clone(), set(&of, "exp", json!(now - 1))),
        ("issued in the future", header.clone(), set(&of, "iat", json!(now + 61))),
        ("not valid yet", header.clone(), set(&of, "nbf", json!(now + 61))),
    ];
    for (fault, header, claims) in faults {
        let asked = me(&app, &jwt(&header, &claims, &key.key)).await;
        assert_eq!((asked.status, &asked.body["reason"]), (401, &json!("unauthenticated")), "{fault}: {}", asked.text);
    }
    me(&app, &jwt(&header, &of, &other_key.key)).await.refused(401, "unauthenticated");
    assert_eq!(app.count("select count(*) from users where external_id = 'u-2'").await, 0, "no fault makes a user");
    app.advance(3_601);
    me(&app, &good).await.refused(401, "token_expired");
    app.done().await;
}

/// A user key is replaced with an overlap, in which both are valid, or at once; a process that remembered the former
/// one learns of it by a notification.
#[tokio::test]
async fn user_key_rotated_stays_valid_for_its_overlap() {
    let app = App::new().await;
    let partner_id = app.partner.partner_id;
    let first = user_key(&app, partner_id, 0).await;
    assert!(first.key.starts_with("nhu_") && first.kid == format!("u.{partner_id}.1"), "{first:?}");
    let token = |key| subscriber(&app, partner_id, key, "u-1");
    me(&app, &token(&first)).await.expect(200);
    let second = user_key(&app, partner_id, 600).await;
    for key in [&first, &second] {
        me(&app, &token(key)).await.expect(200);
    }
    app.advance(600);
    me(&app, &token(&first)).await.refused(401, "unauthenticated");
    me(&app, &token(&second)).await.expect(200);
    let third = user_key(&app, partner_id, 0).await;
    me(&app, &token(&second)).await.refused(401, "unauthenticated");
    me(&app, &token(&third)).await.expect(200);
    let stored: Vec<Option<Vec<u8>>> =
        sqlx::query_scalar("select user_key from partners").fetch_all(&app.db().await).await.unwrap();
    let (_, secret) = third.key.split_once('_').unwrap();
    assert!(stored.iter().flatten().all(|key| !String::from_utf8_lossy(key).contains(secret)), "sealed");
    app.done().await;
}

/// S2-7: tokens that PyJWT and jsonwebtoken sign as `notihub docs users` shows are accepted.
#[tokio::test]
async fn subscriber_token_of_a_library_is_accepted() {
    let app = App::new().await;
    let partner_id = app.partner.partner_id.to_string();
    let key = user_key(&app, app.partner.partner_id, 0).await;
    let now = app.hub.clock.now().timestamp().to_string();
    let python_code = "import sys, jwt\n\
        iss, key, kid, now = sys.argv[1:5]\n\
        claims = {'iss': iss, 'aud': 'notihub/user', 'sub': 'u-python', 'iat': int(now), 'exp': int(now) + 3600}\n\
        print(jwt.encode(claims, key, algorithm='HS256', headers={'kid': kid}))";
    let node_code = "const [iss, key, kid, now, folder] = process.argv.slice(1)\n\
        const jwt = require(folder + '/node_modules/jsonwebtoken')\n\
        console.log(jwt.sign({ nickname: 'Kim', iat: Number(now) }, key, { algorithm: 'HS256', keyid: kid, \
        issuer: iss, audience: 'notihub/user', subject: 'u-node', expiresIn: '1h' }))";
    let mut runs = vec![(python("jwt"), vec!["-c", python_code], "u-python")];
    let folder = node_library().filter(|_| is_there("node"));
    if folder.is_some() {
        runs.push(("node", vec!["-e", node_code], "u-node"));
    }
    let folder = folder.unwrap_or_default();
    for (program, code, sub) in runs {
        let run = tokio::process::Command::new(program)
            .args(code)
            .args([&partner_id, &key.key, &key.kid, &now, &folder])
            .output()
            .await
            .unwrap();
        assert!(run.status.success(), "{program}: {}", String::from_utf8_lossy(&run.stderr));
        let token = String::from_utf8(run.stdout).unwrap();
        let asked = me(&app, token.trim()).await.expect(200);
        assert_eq!(asked.body["data"]["externalId"], sub);
    }
    app.done().await;
}

/// Users that two processes name at the same moment are made once each, in few statements, and those that are there are
/// found; names that no user can have are left out.
#[tokio::test]
async fn users_named_at_the_same_moment_are_made_once() {
    let app = App::new().await;
    let (other, _, _) = app.partner(named("other")).await;
    let process = app.another_process().await;
    let wanted = |from: usize| -> Vec<WantedUser> {
        let of = |partner: &notihub::model::partner::Partner, n: usize| WantedUser {
            shard: partner.shard,
            partner_id: partner.partner_id,
            name: format!("u-{n}"),
        };
        let mut all: Vec<WantedUser> = (from..from + 150).map(|n| of(&app.partner, n)).collect();
        all.extend((from..from + 50).map(|n| of(&other, n)));
        all.push(all[0].clone());
        all.push(WantedUser { name: "\n".into(), ..all[0].clone() });
        all
    };
    let (one, two) = (wanted(0), wanted(100));
    let (first, second) = tokio::join!(find_or_create(&app.hub, &one), find_or_create(&process, &two));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.last(), second.last()), (Some(&None), Some(&None)));
    assert_eq!(first[0], first[200], "the same name is the same user");
    let found: BTreeSet<_> = one
        .iter()
        .zip(&first)
        .chain(two.iter().zip(&second))
        .filter_map(|(wanted, found)| Some((wanted.partner_id, wanted.name.clone(), found.as_ref()?.user_id)))
        .collect();
    let names: BTreeSet<_> = found.iter().map(|(partner, name, _)| (partner, name)).collect();
    let ids: BTreeSet<_> = found.iter().map(|(.., id)| id).collect();
    assert_eq!((found.len(), names.len(), ids.len()), (350, 350, 350));
    assert_eq!(app.count("select count(*) from users").await, 350);
    assert_eq!(find_or_create(&app.hub, &one).await.unwrap(), first);
    let by_id = WantedUser { name: first[3].unwrap().user_id.to_string(), ..one[3].clone() };
    assert_eq!(find_or_create(&app.hub, &[by_id]).await.unwrap(), [first[3]]);
    process.shutdown.stop();
    assert!(process.shutdown.drained(TimeDelta::seconds(20).to_std().unwrap()).await);
    process.store.close().await;
    app.done().await;
}
