//! Access tokens: forgeries are refused, and signing keys are replaced.

use data_encoding::BASE64URL_NOPAD;
use notihub::crypt::keyed_hash;
use notihub::flow::sign_in::{maintain_keys, rotate_signing_key};
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use serde_json::{Value, json};

use crate::access::{Other, Tokens, looks, signed_in, signing_key, unauthenticated, with};
use crate::support::app::{Answer, App, named};

/// A token as we sign it, whatever it says.
fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = BASE64URL_NOPAD.encode(&keyed_hash(secret, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// S0-29, S0-30: a token that we did not sign, or not so, is not taken: each forgery of the table is refused alike (A1,
/// A2, A3, A4, A5).
#[tokio::test]
async fn token_forged_is_refused() {
    let (app, elsewhere) = (App::new().await, App::new().await);
    let (_, other, _) = app.partner(named("other")).await;
    let operator = app.staff(StaffRole::Operator).await;
    let (kid, secret) = signing_key(&app).await;
    // Its first key was made at the same moment of the same clock, and has the name of ours.
    elsewhere.advance(7);
    let actor = Actor::local_admin("test".into());
    rotate_signing_key(&elsewhere.hub, actor.admin_permit().unwrap(), true).await.unwrap();
    let (their_kid, their_secret) = signing_key(&elsewhere).await;
    assert_ne!((&their_kid, &their_secret), (&kid, &secret));
    let now = app.hub.clock.now().timestamp();
    let header = json!({"typ": "at+jwt", "alg": "HS256", "kid": kid});
    let me = &app.credentials.client_id;
    let claims = json!({"iss": "notihub", "aud": "notihub/api", "sub": me, "role": "PARTNER", "epoch": 1, "iat": now,
        "exp": now + 86_400});
    let good = forged(&header, &claims, &secret);
    app.ask(&good, "GET", "/v1/messages", None).await.expect(200);
    let ahead = with(&claims, "iat", json!(now + 60));
    app.ask(&forged(&header, &ahead, &secret), "GET", "/v1/messages", None).await.expect(200);

    let mut table: Vec<(String, String)> = Vec::new();
    let mut add = |what: String, token: String| table.push((what, token));
    // The header: with the right key's signature, with none, and with an empty one.
    let headers = [
        ("alg", json!("none")),
        ("alg", json!("None")),
        ("alg", json!("NONE")),
        ("alg", json!("HS512")),
        ("alg", json!("HS384")),
        ("alg", json!("hs256")),
        ("alg", json!("RS256")),
        ("alg", json!("ES256")),
        ("alg", json!("EdDSA")),
        ("alg", json!(["HS256"])),
        ("alg", json!("")),
        ("alg", json!(null)),
        ("alg", json!(256)),
        ("typ", json!("JWT")),
        ("typ", json!("AT+JWT")),
        ("typ", json!("application/at+jwt")),
        ("typ", json!("")),
        ("typ", json!(null)),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("/etc/passwd")),
        ("kid", json!("' or 1=1 --")),
        ("kid", json!("x' union select 'c2VjcmV0' --")),
        ("kid", json!("https://attacker.example/key")),
        ("kid", json!("0000000000000")),
        ("kid", json!("")),
        ("kid", json!("\0")),
        ("kid", json!(null)),
        ("kid", json!(7)),
        ("kid", json!([kid])),
        ("kid", json!(their_kid)),
        ("kid", json!(format!("{kid} "))),
        ("kid", json!(format!("{kid}\0"))),
        ("kid", json!(kid.to_lowercase() + "x")),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/x.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("b64", json!(false)),
        ("anything", json!(1)),
    ];
    for (name, value) in headers {
        let changed = with(&header, name, value);
        for signature in [secret.as_slice(), b"", &their_secret] {
            add(format!("{changed}"), forged(&changed, &claims, signature));
        }
        let unsigned = forged(&changed, &claims, &secret);
        add(format!("{changed} unsigned"), unsigned[..=unsigned.rfind('.').unwrap()].to_owned());
    }
    for name in ["alg", "typ", "kid"] {
        add(format!("without {name}"), forged(&with(&header, name, None), &claims, &secret));
    }
    for whole in [json!(null), json!([]), json!("at+jwt"), json!(1), json!({})] {
        add(format!("header {whole}"), forged(&whole, &claims, &secret));
        add(format!("claims {whole}"), forged(&header, &whole, &secret));
    }
    // What it claims, signed as it should be.
    let claimed = [
        ("iss", json!("https://attacker.example")),
        ("iss", json!(["notihub"])),
        ("iss", json!("")),
        ("aud", json!("notihub")),
        ("aud", json!("notihub/person")),
        ("aud", json!(["notihub/api"])),
        ("aud", json!(["notihub/api", "else"])),
        ("aud", json!("")),
        ("sub", json!("")),
        ("sub", json!("0000000000000")),
        ("sub", json!("' or 1=1 --")),
        ("sub", json!([me])),
        ("sub", json!(null)),
        ("role", json!("ADMIN")),
        ("role", json!("OPERATOR")),
        ("role", json!("partner")),
        ("role", json!("")),
        ("role", json!(["PARTNER"])),
        ("epoch", json!(0)),
        ("epoch", json!(2)),
        ("epoch", json!(-1)),
        ("epoch", json!(1.5)),
        ("epoch", json!("1")),
        ("epoch", json!(i64::MAX)),
        ("exp", json!((now + 100) as f64 + 0.5)),
        ("exp", json!(1e300)),
        ("exp", json!(-1)),
        ("exp", json!(i64::MIN)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(u64::MAX)),
        ("exp", json!((now + 100).to_string())),
        ("exp", json!(null)),
        ("exp", json!(true)),
        ("exp", json!(now + 86_401)),
        ("exp", json!(now - 1)),
        ("iat", json!(now + 61)),
        ("iat", json!(now - 1)),
        ("iat", json!(i64::MAX)),
        ("iat", json!(i64::MIN)),
        ("iat", json!(-1e300)),
        ("iat", json!(now.to_string())),
        ("nbf", json!(now)),
        ("nbf", json!(now + 1000)),
        ("jti", json!("x")),
        ("admin", json!(true)),
    ];
    for (name, value) in claimed {
        let changed = with(&claims, name, value);
        add(format!("{changed}"), forged(&header, &changed, &secret));
    }
    for name in ["iss", "aud", "sub", "role", "epoch", "iat", "exp"] {
        add(format!("claims no {name}"), forged(&header, &with(&claims, name, None), &secret));
    }
    let future = with(&with(&claims, "iat", json!(now + 61)), "exp", json!(now + 100));
    add("from the future".into(), forged(&header, &future, &secret));
    // Said twice: two readers would disagree.
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let twice = claims.to_string().replace("\"role\"", "\"role\":\"ADMIN\",\"role\"");
    let signed = format!("{}.{}", part(&header.to_string()), part(&twice));
    let signature = BASE64URL_NOPAD.encode(&keyed_hash(&secret, signed.as_bytes()));
    add("a claim twice".into(), format!("{signed}.{signature}"));
    // Another's name under my signature, and another installation's own good token, under its key's name and under
    // ours.
    let parts: Vec<&str> = good.split('.').collect();
    let as_other = BASE64URL_NOPAD.encode(with(&claims, "sub", json!(other.client_id)).to_string().as_bytes());
    add("another's sub".into(), format!("{}.{as_other}.{}", parts[0], parts[2]));
    add("as operator".into(), format!("{}.{}.{}", parts[0], operator.split('.').nth(1).unwrap(), parts[2]));
    add("another installation's".into(), elsewhere.fresh_token().await);
    add("another installation's, under a name of ours".into(), elsewhere.token.clone());
    add("another's key under its name".into(), forged(&with(&header, "kid", json!(their_kid)), &claims, &their_secret));
    add("another's key under our name".into(), forged(&header, &claims, &their_secret));
    // Its form.
    add("no signature".into(), format!("{}.{}", parts[0], parts[1]));
    add("empty signature".into(), format!("{}.{}.", parts[0], parts[1]));
    add("four parts".into(), format!("{good}.{}", parts[2]));
    add("five parts".into(), format!("{good}..{}", parts[2]));
    add("dots".into(), "..".into());
    add("padded".into(), format!("{good}="));
    add("standard base64".into(), format!("{}.{}.++++", parts[0], parts[1]));
    for cut in [1, 4, 10, 22, 42] {
        add(format!("{cut} cut off"), good[..good.len() - cut].to_owned());
        add(format!("{cut} cut off before"), good[cut..].to_owned());
    }
    add("longer".into(), format!("{good}A"));
    add("5 KiB".into(), format!("{good}{}", "A".repeat(5 * 1024)));
    add("5 KiB of claims".into(), forged(&header, &with(&claims, "note", json!("x".repeat(5 * 1024))), &secret));
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let signed = format!("{}.{}", part(&header.to_string()), part(&format!("{{\"iss\":{deep}}}")));
    add("deep".into(), format!("{signed}.{}", BASE64URL_NOPAD.encode(&keyed_hash(&secret, signed.as_bytes()))));
    add("a client id".into(), me.clone());
    add("a secret".into(), app.credentials.client_secret.clone());
    assert!(table.len() > 250, "{}", table.len());
    for (what, token) in table {
        unauthenticated(&what, app.ask(&token, "GET", "/v1/messages", None).await);
    }

    // Every byte of it counts.
    for n in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        unauthenticated(&format!("byte {n}"), app.ask(&changed, "GET", "/v1/messages", None).await);
    }

    // A token that was good and is over is answered with `token_expired`; no other token is.
    let over = with(&with(&claims, "iat", json!(now - 86_400)), "exp", json!(now));
    app.ask(&forged(&header, &over, &secret), "GET", "/v1/messages", None).await.refused(401, "token_expired");
    let over = forged(&header, &over, &their_secret);
    unauthenticated("over, and not ours", app.ask(&over, "GET", "/v1/messages", None).await);
    app.done().await;
    elsewhere.done().await;
}

/// S0-29, S0-30: the key that signs is replaced while tokens of both are good in every process; a lost one voids its
/// tokens at once; one that is over goes; and a hub that was off for months signs in at once.
#[tokio::test]
async fn signing_key_replaced_keeps_tokens_good() {
    let app = App::new().await;
    let other = Other::of(&app).await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    let kid_of = |tokens: &Tokens| {
        let header = BASE64URL_NOPAD.decode(tokens.access.split('.').next().unwrap().as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let before = signed_in(&app, &app.credentials).await;
    let next = rotate_signing_key(&app.hub, permit, false).await.unwrap();
    let meanwhile = signed_in(&app, &app.credentials).await;
    assert_eq!(kid_of(&meanwhile), kid_of(&before), "not before every process has read it");
    app.advance(5 * 60);
    let after = signed_in(&app, &app.credentials).await;
    assert_eq!(kid_of(&after), next);
    for tokens in [&before, &meanwhile, &after] {
        looks(&app, tokens).await.expect(200);
        other.looks(tokens).await.expect(200);
    }
    let audited = app.count("select count(*) from audit where action = 'signing_key.rotate' and object is not null");
    assert_eq!(audited.await, 1);

    let lost = rotate_signing_key(&app.hub, permit, true).await.unwrap();
    let now = signed_in(&app, &app.credentials).await;
    assert_eq!(kid_of(&now), lost);
    for tokens in [&before, &meanwhile, &after] {
        unauthenticated("signed with a lost key", looks(&app, tokens).await);
    }
    // The other process reads keys again for one it does not know, though it asked just now: five seconds later.
    app.advance(5);
    other.looks(&now).await.expect(200);
    unauthenticated("in another process too", other.looks(&before).await);
    assert_eq!(app.count("select count(*) from signing_keys").await, 1);

    // Signs for thirty days, verifies for as long again and a day.
    app.advance(30 * 86_400);
    let old = signed_in(&app, &app.credentials).await;
    assert_eq!(kid_of(&old), lost);
    maintain_keys(&app.hub).await.unwrap();
    maintain_keys(&other.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from signing_keys").await, 2);
    app.advance(5 * 60);
    let young = signed_in(&app, &app.credentials).await;
    assert_ne!(kid_of(&young), lost);
    for tokens in [&old, &young] {
        looks(&app, tokens).await.expect(200);
        other.looks(tokens).await.expect(200);
    }
    app.advance(31 * 86_400);
    maintain_keys(&app.hub).await.unwrap();
    maintain_keys(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from signing_keys where kid = (select min(kid) from signing_keys)").await, 1);
    let kids: Vec<String> =
        sqlx::query_scalar("select kid from signing_keys").fetch_all(&app.db().await).await.unwrap();
    assert!(!kids.contains(&lost), "it is over");

    // Off for seventy days: nothing is left to sign with, and the next start makes one that signs at once.
    other.done().await;
    app.advance(70 * 86_400);
    let other = Other::of(&app).await;
    let body = json!({"clientId": app.credentials.client_id, "clientSecret": app.credentials.client_secret});
    let request = reqwest::Client::new().post(format!("http://{}/v1/auth/token", other.address));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let tokens = Tokens::of(&Answer::read(request).await.expect(200));
    other.looks(&tokens).await.expect(200);
    // A process that knew nothing of it learns of the key from the token.
    looks(&app, &tokens).await.expect(200);
    other.done().await;
    app.done().await;
}
