//! Limits on failed sign-ins, by client and by address.

use std::net::SocketAddr;

use notihub::flow;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use serde_json::json;

use crate::access::{Other, Tokens, refresh, signed_in, try_sign_in, unauthenticated};
use crate::support::app::{Answer, App, named};

/// A sign-in at one process, with these lines of a header that a proxy writes.
async fn sign_in_from(at: SocketAddr, lines: &[(&str, &str)], client_id: &str, client_secret: &str) -> Answer {
    let body = json!({"clientId": client_id, "clientSecret": client_secret});
    let mut request = reqwest::Client::new().post(format!("http://{at}/v1/auth/token"));
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    Answer::read(request.header("content-type", "application/json").body(body.to_string())).await
}

/// S0-35: after ten failures for one client even the right secret waits, except where the client has signed in before;
/// after a minute no sign-in waits. An address that tries many clients waits with all of its sign-ins.
#[tokio::test]
async fn sign_in_failures_beyond_ten_are_limited() {
    let app = App::with(&["--behind-proxy"]).await;
    let (_, key, _) = app.partner(named("orders")).await;
    let from = async |address: &str, client_id: &str, client_secret: &str| {
        sign_in_from(app.address, &[("x-forwarded-for", address)], client_id, client_secret).await
    };
    from("203.0.113.2", &key.client_id, &key.client_secret).await.expect(200);
    for _ in 0..10 {
        unauthenticated("wrong", from("203.0.113.1", &key.client_id, "wrong").await);
    }
    let limited = from("203.0.113.1", &key.client_id, &key.client_secret).await.refused(429, "sign_in_limited");
    assert_eq!((&limited.body["code"], limited.header("retry-after")), (&json!("E003"), "60"));
    from("203.0.113.9", &key.client_id, &key.client_secret).await.refused(429, "sign_in_limited");
    from("203.0.113.2", &key.client_id, &key.client_secret).await.expect(200);
    // Only what our own proxy says counts: the last of the list.
    from("203.0.113.1, 203.0.113.2", &key.client_id, &key.client_secret).await.expect(200);
    from("203.0.113.2, 203.0.113.1", &key.client_id, &key.client_secret).await.refused(429, "sign_in_limited");
    from("nonsense", &key.client_id, &key.client_secret).await.refused(429, "sign_in_limited");
    from("203.0.113.1", &app.credentials.client_id, &app.credentials.client_secret).await.expect(200);
    app.advance(59);
    let limited = from("203.0.113.1", &key.client_id, &key.client_secret).await.refused(429, "sign_in_limited");
    assert_eq!(limited.header("retry-after"), "1");
    app.advance(1);
    from("203.0.113.1", &key.client_id, &key.client_secret).await.expect(200);

    for n in 0..100 {
        unauthenticated("guessing", from("198.51.100.7", &format!("nobody{n}"), "wrong").await);
    }
    from("198.51.100.7", &key.client_id, &key.client_secret).await.refused(429, "sign_in_limited");
    from("198.51.100.8", &key.client_id, &key.client_secret).await.expect(200);
    app.done().await;
}

/// Fault B3: a client has ten failures a minute over all processes and addresses, also when they come at the same time;
/// its owner is not locked out where it has signed in before, and has ten failures of its own there.
#[tokio::test]
async fn sign_in_failures_of_a_client_are_counted_over_all_processes() {
    let app = App::with(&["--behind-proxy"]).await;
    let other = Other::with(&app, &["--accept-loss", "--behind-proxy"]).await;
    let (_, key, _) = app.partner(named("orders")).await;
    let at = [app.address, other.address];
    let from = async |n: usize, address: String, secret: &str| {
        sign_in_from(at[n % 2], &[("x-forwarded-for", &address)], &key.client_id, secret).await
    };
    from(0, "192.0.2.1".into(), &key.client_secret).await.expect(200);
    // As many at a time as there are connections to the database.
    let mut answers = Vec::new();
    for wave in (0..40).collect::<Vec<_>>().chunks(6) {
        let wrong = wave.iter().map(|n| from(*n, format!("203.0.113.{n}"), "wrong"));
        answers.extend(futures_util::future::join_all(wrong).await);
    }
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(401), count(429)), (10, 30));
    assert_eq!(app.count("select count(*) from sign_in_failures").await, 1, "addresses make no rows");
    for n in 0..2 {
        from(n, "203.0.113.99".into(), &key.client_secret).await.refused(429, "sign_in_limited");
        from(n, "192.0.2.1".into(), &key.client_secret).await.expect(200);
    }
    for n in 0..10 {
        unauthenticated("its own failures", from(n, "192.0.2.1".into(), "wrong").await);
    }
    for n in 0..2 {
        from(n, "192.0.2.1".into(), &key.client_secret).await.refused(429, "sign_in_limited");
    }
    // Clients that do not exist are judged alike by each process, and leave no rows.
    for n in 0..11 {
        let address = format!("203.0.113.{n}");
        let lines = [("x-forwarded-for", address.as_str())];
        let answer = sign_in_from(app.address, &lines, "0000000000000", "wrong").await;
        assert_eq!(answer.status, if n < 10 { 401 } else { 429 }, "{n}");
    }
    assert_eq!(app.count("select count(*) from sign_in_failures").await, 2);
    app.advance(60);
    for n in 0..2 {
        from(n, "203.0.113.99".into(), &key.client_secret).await.expect(200);
    }
    flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from sign_in_failures").await, 0, "counts that are over are deleted");
    other.done().await;
    app.done().await;
}

/// Fault B2: a refresh is judged by the limit of its address alone, whatever clients failed there; and so is a
/// revocation.
#[tokio::test]
async fn refresh_is_limited_by_its_address_alone() {
    let app = App::new().await;
    let tokens = signed_in(&app, &app.credentials).await;
    let nobody = |n: usize| flow::partner::Credentials { client_id: format!("nobody{n}"), client_secret: "x".into() };
    for n in 0..10 {
        unauthenticated("unknown", try_sign_in(&app, &nobody(n)).await);
    }
    let wrong = flow::partner::Credentials { client_secret: "x".into(), ..app.credentials.clone() };
    for _ in 0..10 {
        unauthenticated("wrong", try_sign_in(&app, &wrong).await);
    }
    try_sign_in(&app, &wrong).await.refused(429, "sign_in_limited");
    for n in 0..15 {
        unauthenticated("no token", refresh(&app, &format!("nhr_{n}")).await);
    }
    let tokens = Tokens::of(&refresh(&app, &tokens.refresh).await.expect(200));
    let revoke = async |token: &str| app.ask("", "POST", "/v1/auth/revoke", Some(json!({"refreshToken": token}))).await;
    for n in 0..65 {
        revoke(&format!("nhr_{n}")).await.expect(204);
    }
    refresh(&app, &tokens.refresh).await.refused(429, "sign_in_limited");
    revoke(&tokens.refresh).await.refused(429, "sign_in_limited");
    app.advance(60);
    refresh(&app, &tokens.refresh).await.expect(200);
    app.done().await;
}

/// Fault C4: the address that a proxy writes is read in every form, from the header that the settings name, and what
/// cannot be read is no address at all: callers without one do not have each other limited.
#[tokio::test]
async fn address_behind_a_proxy_is_read_in_every_form() {
    let app = App::with(&["--behind-proxy"]).await;
    let forwarded = Other::with(&app, &["--accept-loss", "--behind-proxy", "--proxy-header", "Forwarded"]).await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    let staff = flow::partner::create_key(&app.hub, permit, StaffRole::Admin, "staff").await.unwrap();
    let (list, rfc7239) = ("x-forwarded-for", "forwarded");
    type Case<'a> = (SocketAddr, &'a [(&'a str, &'a str)], Option<&'a str>);
    let table: [Case<'_>; 13] = [
        (app.address, &[(list, "203.0.113.7")], Some("203.0.113.7")),
        (app.address, &[(list, "203.0.113.7:4711")], Some("203.0.113.7")),
        (app.address, &[(list, "10.0.0.1, [2001:db8::7]:4711")], Some("2001:db8::7")),
        (app.address, &[(list, "[2001:db8::7]")], Some("2001:db8::7")),
        (app.address, &[(list, "::ffff:203.0.113.7")], Some("203.0.113.7")),
        (app.address, &[(list, "203.0.113.1"), (list, "203.0.113.7")], Some("203.0.113.7")),
        (app.address, &[(list, "203.0.113.1"), (list, "unknown")], None),
        (app.address, &[(rfc7239, "for=203.0.113.7")], None),
        (app.address, &[], None),
        (
            forwarded.address,
            &[(rfc7239, "for=203.0.113.1, for=\"[2001:db8::7]:4711\";proto=https")],
            Some("2001:db8::7"),
        ),
        (
            forwarded.address,
            &[(rfc7239, "for=203.0.113.1"), (rfc7239, "proto=http;For=203.0.113.7:80")],
            Some("203.0.113.7"),
        ),
        (forwarded.address, &[(rfc7239, "for=_hidden")], Some("_hidden")),
        (forwarded.address, &[(list, "203.0.113.7")], None),
    ];
    for (at, lines, address) in table {
        let token =
            Tokens::of(&sign_in_from(at, lines, &staff.client_id, &staff.client_secret).await.expect(200)).access;
        let log = app.ask(&token, "GET", "/v1/audit?limit=2", None).await.expect(200).body;
        let entries = log["items"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["action"] == "sign_in").unwrap();
        assert_eq!(entry["address"].as_str(), address, "{lines:?}");
    }
    // One address in four forms is one address; its network of IPv6 is one as well.
    let forms = ["[2001:db8::7]:4711", "2001:db8::7", "[2001:db8::8]", "2001:db8:0:0:ffff::"];
    for n in 0..100 {
        let lines = [(list, forms[n % 4])];
        unauthenticated("guessing", sign_in_from(app.address, &lines, &format!("nobody{n}"), "wrong").await);
    }
    for form in forms {
        sign_in_from(app.address, &[(list, form)], "anybody", "wrong").await.refused(429, "sign_in_limited");
    }
    for n in 0..101 {
        let lines = [(list, "unknown")];
        unauthenticated("no address", sign_in_from(app.address, &lines, &format!("somebody{n}"), "wrong").await);
    }
    forwarded.done().await;
    app.done().await;
}

/// S0-35: without a proxy in front a caller cannot choose its address.
#[tokio::test]
async fn address_without_a_proxy_cannot_be_made_up() {
    let app = App::new().await;
    let body = json!({"clientId": app.credentials.client_id, "clientSecret": "wrong"}).to_string();
    for n in 0..11 {
        let request = reqwest::Client::new().post(app.uri("/v1/auth/token")).header("content-type", "application/json");
        let request = request.header("x-forwarded-for", format!("203.0.113.{n}")).body(body.clone());
        let answer = Answer::read(request).await;
        assert_eq!(answer.status, if n < 10 { 401 } else { 429 }, "{n}: {}", answer.text);
    }
    app.done().await;
}
