//! Signing in, and what who signed in may do.

use serde_json::json;

use crate::support::{App, email, named};

/// S0-29, S0-30, S0-31, S3-20, S3-44: a client's secret gives an access token for a day and a refresh token, which gives
/// the next; without a token nothing is answered.
#[tokio::test]
async fn a_secret_gives_tokens_and_tokens_let_in() {
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
