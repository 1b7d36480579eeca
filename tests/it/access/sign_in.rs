//! Signing in: a client's secret gives tokens, and each kind of secret opens its own door.

use data_encoding::BASE64URL_NOPAD;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::partner::PartnerStatus;
use notihub::store::listen::Topic;
use notihub::{flow, worker};
use serde_json::json;

use crate::access::{Other, looks, refresh, refreshed, signed_in, try_sign_in, unauthenticated};
use crate::support::app::{Answer, App, email, named};
use crate::support::wait::until;

/// S0-29, S0-30, S0-31, S0-80, S3-20, S3-44: a client's secret gives an access token for a day and a refresh token,
/// which gives the next; without a token nothing is answered.
#[tokio::test]
async fn sign_in_gives_tokens_that_authenticate() {
    let app = App::new().await;
    let (_, key, _) = app.partner(named("orders")).await;
    let secret = json!({"clientId": key.client_id, "clientSecret": key.client_secret});
    let signed_in = app.ask("", "POST", "/v1/auth/token", Some(secret)).await.expect(200).body;
    assert_eq!((&signed_in["tokenType"], &signed_in["expiresIn"]), (&json!("Bearer"), &json!(86_400)));
    let token = signed_in["accessToken"].as_str().unwrap();
    let id = app.ask(token, "POST", "/v1/messages", Some(email("kim@example.com"))).await.expect(202).id();
    app.ask(token, "GET", &format!("/v1/messages/{id}"), None).await.expect(200);
    app.ask("", "GET", &format!("/v1/messages/{id}"), None).await.refused(401, "unauthenticated");
    app.get(&format!("/v1/messages/{id}")).await.refused(404, "not_found");
    app.advance(86_399);
    app.ask(token, "GET", "/v1/messages", None).await.expect(200);
    app.advance(1);
    let over = app.ask(token, "GET", "/v1/messages", None).await.refused(401, "token_expired");
    assert_eq!((over.header("www-authenticate"), &over.body["code"]), ("Bearer", &json!("E002")));
    let refresh = json!({"refreshToken": signed_in["refreshToken"]});
    let next = app.ask("", "POST", "/v1/auth/refresh", Some(refresh)).await.expect(200).body;
    app.ask(next["accessToken"].as_str().unwrap(), "GET", "/v1/messages", None).await.expect(200);
    app.done().await;
}

/// A request with these Authorization headers.
async fn with_authorization(app: &App, given: &[&[u8]]) -> Answer {
    let mut request = reqwest::Client::new().get(app.uri("/v1/messages"));
    for value in given {
        request = request.header("authorization", reqwest::header::HeaderValue::from_bytes(value).unwrap());
    }
    Answer::read(request).await
}

/// S0-29: there is one place for a token, and one way to write it.
#[tokio::test]
async fn token_outside_its_header_is_refused() {
    let app = App::new().await;
    let bearer = |text: &str| format!("{text}{}", app.token).into_bytes();
    for right in ["Bearer ", "bearer ", "BEARER ", "Bearer  "] {
        with_authorization(&app, &[&bearer(right)]).await.expect(200);
    }
    let basic =
        BASE64URL_NOPAD.encode(format!("{}:{}", app.credentials.client_id, app.credentials.client_secret).as_bytes());
    for (what, given) in [
        ("none", vec![]),
        ("twice", vec![bearer("Bearer "), bearer("Bearer ")]),
        ("two", vec![bearer("Bearer "), b"Bearer x".to_vec()]),
        ("two, the first wrong", vec![b"Basic x".to_vec(), bearer("Bearer ")]),
        ("basic", vec![format!("Basic {basic}").into_bytes()]),
        ("basic with the token", vec![bearer("Basic ")]),
        ("digest", vec![bearer("Digest ")]),
        ("no scheme", vec![bearer("")]),
        ("no space", vec![bearer("Bearer")]),
        ("a tab", vec![bearer("Bearer\t")]),
        ("a comma", vec![bearer("Bearer,")]),
        ("no token", vec![b"Bearer".to_vec()]),
        ("a space", vec![b"Bearer ".to_vec()]),
        ("nothing", vec![b"".to_vec()]),
        ("a word after it", vec![[bearer("Bearer ").as_slice(), b" x"].concat()]),
        ("another after it", vec![[bearer("Bearer ").as_slice(), b", ", &bearer("Bearer ")].concat()]),
        ("not text", vec![b"Bearer \xff\xfe".to_vec()]),
        ("quoted", vec![[b"Bearer \"", bearer("").as_slice(), b"\""].concat()]),
    ] {
        let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
        unauthenticated(what, with_authorization(&app, &given).await);
    }
    for path in [
        format!("/v1/messages?access_token={}", app.token),
        format!("/v1/messages?clientId={}&clientSecret={}", app.credentials.client_id, app.credentials.client_secret),
    ] {
        unauthenticated(&path, app.ask("", "GET", &path, None).await);
    }
    app.done().await;
}

/// S0-29, S0-31: each kind of secret opens its own door and no other (A3). A text that is no secret gets another answer
/// than a wrong secret only where its form is wrong.
#[tokio::test]
async fn secret_at_another_door_is_refused() {
    let app = App::new().await;
    let tokens = signed_in(&app, &app.credentials).await;
    unauthenticated("a refresh token", app.ask(&tokens.refresh, "GET", "/v1/messages", None).await);
    let (id, secret) = (&app.credentials.client_id, &app.credentials.client_secret);
    for wrong in [secret.as_str(), "x", "nhr_", &format!("{}A", tokens.refresh), &tokens.refresh[4..]] {
        unauthenticated(wrong, refresh(&app, wrong).await);
    }
    // An access token is longer than any refresh token.
    refresh(&app, &tokens.access).await.refused(422, "content_too_long");
    for (id, secret) in [
        (id.as_str(), tokens.refresh.as_str()),
        (id, "x"),
        (id, &secret[..secret.len() - 1]),
        (id, &format!("{secret} ")),
        (id, &secret.to_uppercase()),
        (&id.to_lowercase(), secret),
        ("0000000000000", secret),
        ("' or 1=1 --", secret),
    ] {
        let body = json!({"clientId": id, "clientSecret": secret});
        unauthenticated(id, app.ask("", "POST", "/v1/auth/token", Some(body)).await);
    }
    for (body, reason) in [
        (json!({"clientId": id}), "required"),
        (json!({"clientId": id, "clientSecret": null}), "null_not_allowed"),
        (json!({"clientId": id, "clientSecret": ""}), "empty"),
        (json!({"clientId": id, "clientSecret": [secret]}), "type_mismatch"),
        (json!({"clientId": id, "clientSecret": "a\0b"}), "control_character"),
        (json!({"clientId": "a\0b", "clientSecret": secret}), "control_character"),
        (json!({"clientId": id, "clientSecret": secret, "role": "ADMIN"}), "unknown_field"),
        (json!([id, secret]), "type_mismatch"),
    ] {
        app.ask("", "POST", "/v1/auth/token", Some(body)).await.refused(422, reason);
    }
    app.ask("", "POST", "/v1/auth/token?x=1", Some(json!({}))).await.refused(400, "query_unknown");
    app.done().await;
}

/// S0-72: an inactive partner may not sign in, nor use a token that it has: at once in the process that made it
/// inactive, in every other process on the notice of the change, or without the notice ten seconds later. Only a right
/// secret learns that the partner is inactive. A partner that is active again signs in anew.
#[tokio::test]
async fn sign_in_of_an_inactive_partner_is_refused() {
    let app = App::new().await;
    let (partner, key, _) = app.partner(named("orders")).await;
    let (forgetful, answer) = (Other::of(&app).await, Other::of(&app).await);
    worker::hints::start_listening(&answer.hub, vec![Topic::Changed]);
    until("it listens", async || {
        app.count("select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'")
            .await
            > 0
    })
    .await;
    let tokens = signed_in(&app, &key).await;
    for other in [&forgetful, &answer] {
        other.looks(&tokens).await.expect(200);
    }
    let admin = app.staff(StaffRole::Admin).await;
    let set = async |status: &str| {
        let path = format!("/v1/partners/{}", partner.partner_id);
        app.ask(&admin, "PATCH", &path, Some(json!({"status": status}))).await.expect(200);
    };
    let before = app.ask(&tokens.access, "POST", "/v1/messages", Some(email("kim@example.com"))).await.expect(202).id();
    set("INACTIVE").await;
    // Its tokens are void, and its secret right but of no use.
    unauthenticated("its token", looks(&app, &tokens).await);
    let refused = try_sign_in(&app, &key).await.refused(403, "partner_inactive");
    assert_eq!(refused.body["code"], "E008");
    let wrong = flow::partner::Credentials { client_secret: "x".into(), ..key.clone() };
    unauthenticated("a wrong secret learns nothing", try_sign_in(&app, &wrong).await);
    assert_eq!(refresh(&app, &tokens.refresh).await.status, 401);
    until("the other heard of it", async || answer.looks(&tokens).await.status == 401).await;
    forgetful.looks(&tokens).await.expect(200);
    app.advance(11);
    unauthenticated("ten seconds later", forgetful.looks(&tokens).await);
    // What it posted before is delivered.
    app.work().await;
    let operator = app.staff(StaffRole::Operator).await;
    let message = app.ask(&operator, "GET", &format!("/v1/messages/{before}"), None).await.expect(200).body;
    assert_eq!(message["status"], "COMPLETED");
    // Where the notice comes between reading and remembering: a token of the new epoch, of a partner made inactive.
    set("ACTIVE").await;
    unauthenticated("the old token stays void", looks(&app, &tokens).await);
    let anew = signed_in(&app, &key).await;
    looks(&app, &anew).await.expect(200);
    sqlx::query("update partners set status = 'INACTIVE' where partner_id = $1")
        .bind(partner.partner_id.0)
        .execute(&app.db().await)
        .await
        .unwrap();
    app.hub.accounts.forget();
    let refused = looks(&app, &anew).await.refused(403, "partner_inactive");
    assert_eq!(refused.body["code"], "E008");
    refresh(&app, &anew.refresh).await.refused(403, "partner_inactive");
    let change = flow::partner::PartnerChange { status: Some(PartnerStatus::Active), ..Default::default() };
    let actor = Actor::local_admin("test".into());
    flow::partner::update(&app.hub, actor.admin_permit().unwrap(), partner.partner_id, change).await.unwrap();
    // It was not used up by the attempt.
    refreshed(&app, &anew.refresh).await;
    forgetful.done().await;
    answer.done().await;
    app.done().await;
}
