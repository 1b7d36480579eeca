//! Signing in, and what who signed in may do.

use std::net::SocketAddr;

use chrono::TimeDelta;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use notihub::crypt::keyed_hash;
use notihub::flow::sign_in::{maintain_keys, rotate_signing_key};
use notihub::hub::{Hub, Parts};
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::partner::PartnerStatus;
use notihub::provider::Providers;
use notihub::shutdown::Shutdown;
use notihub::store::listen::Topic;
use notihub::{api, flow, http, store, worker};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::processes::until;
use crate::support::{Answer, App, MASTER_KEY, email, named, settings};

/// S0-29, S0-30, S0-31, S0-80, S3-20, S3-44: a client's secret gives an access token for a day and a refresh token, which gives
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

// ---- forged tokens

/// A request with these Authorization headers.
async fn with_authorization(app: &App, given: &[&[u8]]) -> Answer {
    let mut request = reqwest::Client::new().get(app.uri("/v1/messages"));
    for value in given {
        request = request.header("authorization", reqwest::header::HeaderValue::from_bytes(value).unwrap());
    }
    Answer::read(request).await
}

/// The key that signs now, as only the hub has it.
async fn signing_key(app: &App) -> (String, Vec<u8>) {
    let keys = store::signing_key::list(app.hub.store.api(), app.hub.clock.now()).await.unwrap();
    let key = keys.last().unwrap();
    let secret = app.hub.keyring.open(&format!("signing_keys|sealed|{}", key.kid), &key.sealed).unwrap();
    (key.kid.clone(), secret)
}

/// A token as we sign it, whatever it says.
fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = BASE64URL_NOPAD.encode(&keyed_hash(secret, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The same, with a field set; none: without it.
fn with(value: &Value, name: &str, to: impl Into<Option<Value>>) -> Value {
    let mut value = value.clone();
    let fields = value.as_object_mut().unwrap();
    match to.into() {
        Some(to) => fields.insert(name.to_owned(), to),
        None => fields.remove(name),
    };
    value
}

/// Refused like every other, and told no more than that.
#[track_caller]
fn unauthenticated(what: &str, answer: Answer) {
    assert_eq!((answer.status, &answer.body["reason"]), (401, &json!("unauthenticated")), "{what}: {}", answer.text);
    let told = (answer.header("www-authenticate"), &answer.body["code"], answer.header("content-type"));
    assert_eq!(told, ("Bearer", &json!("E002"), "application/problem+json"), "{what}");
}

/// S0-29, S0-30: a token that we did not sign, or not so, is not taken: each forgery of the table is refused alike (A1, A2,
/// A3, A4, A5).
#[tokio::test]
async fn a_forged_token_is_refused() {
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
    // Another's name under my signature, and another installation's own good token, under its key's name and under ours.
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

    // One that was good and is over says so; nothing else does.
    let over = with(&with(&claims, "iat", json!(now - 86_400)), "exp", json!(now));
    app.ask(&forged(&header, &over, &secret), "GET", "/v1/messages", None).await.refused(401, "token_expired");
    let over = forged(&header, &over, &their_secret);
    unauthenticated("over, and not ours", app.ask(&over, "GET", "/v1/messages", None).await);
    app.done().await;
    elsewhere.done().await;
}

/// S0-29: there is one place for a token, and one way to write it.
#[tokio::test]
async fn a_token_has_one_place() {
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

/// S0-29, S0-31: each kind of secret opens its own door and no other (A3), and what is no secret at all is told apart
/// from a wrong one only by its form.
#[tokio::test]
async fn each_secret_has_its_own_door() {
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

// ---- refresh tokens

struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    fn of(answer: &Answer) -> Tokens {
        let text = |name: &str| answer.body[name].as_str().unwrap().to_owned();
        Tokens { access: text("accessToken"), refresh: text("refreshToken") }
    }
}

async fn try_sign_in(app: &App, key: &flow::partner::Credentials) -> Answer {
    let body = json!({"clientId": key.client_id, "clientSecret": key.client_secret});
    app.ask("", "POST", "/v1/auth/token", Some(body)).await
}

async fn signed_in(app: &App, key: &flow::partner::Credentials) -> Tokens {
    Tokens::of(&try_sign_in(app, key).await.expect(200))
}

async fn refresh(app: &App, token: &str) -> Answer {
    app.ask("", "POST", "/v1/auth/refresh", Some(json!({"refreshToken": token}))).await
}

async fn refreshed(app: &App, token: &str) -> Tokens {
    Tokens::of(&refresh(app, token).await.expect(200))
}

async fn looks(app: &App, tokens: &Tokens) -> Answer {
    app.ask(&tokens.access, "GET", "/v1/messages", None).await
}

async fn live_branches(app: &App) -> i64 {
    app.count("select count(*) from refresh_tokens where used_at is null and revoked_at is null").await
}

/// Everything that the database holds, as text.
async fn everything(app: &App) -> String {
    let db = app.db().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables
         where schemaname not in ('pg_catalog', 'information_schema') order by 1",
    )
    .fetch_all(&db)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut all = String::new();
    for table in tables {
        let sql = format!("select coalesce(string_agg(t::text, ' '), '') from {table} t");
        all.push_str(&sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).fetch_one(&db).await.unwrap());
    }
    all
}

/// S0-29, S0-31: who reads the database, a dump or a backup can sign in as nobody (A8): no secret and no token is in it.
#[tokio::test]
async fn the_database_holds_no_secret() {
    let app = App::new().await;
    let admin = app.staff(StaffRole::Admin).await;
    let made = app.ask(&admin, "POST", "/v1/partners", Some(json!({"name": "orders"}))).await.expect(201).body;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let path = format!("/v1/partners/{}/key/rotate", text(&made["partnerId"]));
    let rotated = app.ask(&admin, "POST", &path, Some(json!({"overlapSeconds": 60}))).await.expect(200).body;
    let key = json!({"role": "OPERATOR", "name": "kim"});
    let key = app.ask(&admin, "POST", "/v1/keys", Some(key)).await.expect(201).body;
    let mut secrets = vec![app.credentials.client_secret.clone(), admin, app.token.clone()];
    for made in [made, rotated, key] {
        let (client_id, client_secret) = (text(&made["clientId"]), text(&made["clientSecret"]));
        let tokens =
            signed_in(&app, &flow::partner::Credentials { client_id, client_secret: client_secret.clone() }).await;
        let next = refreshed(&app, &tokens.refresh).await;
        refresh(&app, &tokens.refresh).await.refused(401, "unauthenticated");
        looks(&app, &next).await.expect(200);
        secrets.extend([client_secret, tokens.access, tokens.refresh, next.access, next.refresh]);
    }
    let (_, signing) = signing_key(&app).await;
    let all = everything(&app).await;
    assert!(all.contains("refresh_token") || all.contains(&app.credentials.client_id), "the reader has gone blind");
    assert!(!all.contains(&HEXLOWER.encode(&signing)), "the key that signs is sealed");
    for secret in &secrets {
        // Of an access token, its signature is what counts; of any other secret, what follows its prefix.
        let bare = match secret.rsplit_once('.') {
            Some((_, signature)) => signature,
            None => secret.split_once('_').map_or(secret.as_str(), |(_, bare)| bare),
        };
        let raw = BASE64URL_NOPAD.decode(bare.as_bytes()).map(|raw| HEXLOWER.encode(&raw)).unwrap_or(bare.to_owned());
        for form in [secret.as_str(), bare, &HEXLOWER.encode(secret.as_bytes()), &raw] {
            assert!(form.len() >= 20, "{form} may be anywhere");
            assert!(!all.contains(form), "{secret} is in the database");
        }
    }
    app.done().await;
}

/// S0-31: each refresh token is good once, for thirty days; one that is used again after its owner's race voids all that
/// came from its sign-in, and nothing else; a revoked one likewise (A6).
#[tokio::test]
async fn a_reused_refresh_token_voids_its_family() {
    let app = App::new().await;
    let (partner, key, _) = app.partner(named("orders")).await;
    let (first, beside) = (signed_in(&app, &key).await, signed_in(&app, &key).await);
    let second = refreshed(&app, &first.refresh).await;
    let third = refreshed(&app, &second.refresh).await;
    assert_eq!(std::collections::BTreeSet::from([&first.refresh, &second.refresh, &third.refresh]).len(), 3);
    // Within its owner's race nothing is lost …
    unauthenticated("used", refresh(&app, &first.refresh).await);
    let fourth = refreshed(&app, &third.refresh).await;
    // … after it, all of the family is.
    app.advance(1);
    unauthenticated("stolen", refresh(&app, &second.refresh).await);
    for token in [&first, &second, &third, &fourth] {
        unauthenticated("of the family", refresh(&app, &token.refresh).await);
    }
    let other = refreshed(&app, &beside.refresh).await;
    looks(&app, &fourth).await.expect(200);

    let admin = app.staff(StaffRole::Admin).await;
    let path = format!("/v1/partners/{}/audit?action=refresh_token.reused", partner.partner_id);
    let told = app.ask(&admin, "GET", &path, None).await.expect(200).body;
    let told = told["items"].as_array().unwrap();
    assert_eq!(told.len(), 1, "once, however often: {told:?}");
    assert_eq!(
        (&told[0]["actor"], &told[0]["role"], &told[0]["address"]),
        (&json!(key.client_id), &json!("PARTNER"), &json!("127.0.0.1"))
    );

    let body = json!({"refreshToken": other.refresh});
    for _ in 0..2 {
        app.ask("", "POST", "/v1/auth/revoke", Some(body.clone())).await.expect(204);
    }
    unauthenticated("revoked", refresh(&app, &other.refresh).await);
    app.ask("", "POST", "/v1/auth/revoke", Some(json!({"refreshToken": "never"}))).await.expect(204);

    let late = signed_in(&app, &key).await;
    app.advance(30 * 86_400 - 1);
    maintain_keys(&app.hub).await.unwrap();
    let last = refreshed(&app, &late.refresh).await;
    app.advance(30 * 86_400);
    maintain_keys(&app.hub).await.unwrap();
    unauthenticated("over", refresh(&app, &last.refresh).await);
    app.done().await;
}

/// S0-31: however many use one refresh token at the same moment, one gets the next (A6).
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_raced_for_is_good_once() {
    let app = App::new().await;
    for round in 0..50 {
        let tokens = signed_in(&app, &app.credentials).await;
        let before = live_branches(&app).await;
        let all = (0..20).map(|_| refresh(&app, &tokens.refresh));
        let answers = futures_util::future::join_all(all).await;
        let (good, rest): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
        assert_eq!(good.len(), 1, "round {round}");
        rest.into_iter().for_each(|answer| unauthenticated("lost the race", answer));
        assert_eq!(live_branches(&app).await, before, "round {round}");
        refreshed(&app, &Tokens::of(&good[0]).refresh).await;
    }
    app.done().await;
}

/// S0-31: a successor that is being written while its family is revoked does not escape (A6).
#[tokio::test(flavor = "multi_thread")]
async fn no_successor_escapes_a_revoked_family() {
    let app = App::new().await;
    for (reuse, third) in [(true, "nhr_of_a_thief"), (false, "nhr_of_its_owner")] {
        let first = signed_in(&app, &app.credentials).await;
        let second = refreshed(&app, &first.refresh).await;
        app.advance(1);
        // The second is being used up by somebody who holds its row and has written the third.
        let hash = |token: &str| keyed_hash(&app.hub.pepper, token.as_bytes()).to_vec();
        let mut conn = sqlx::PgConnection::connect(&app.url).await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        sqlx::query("update refresh_tokens set used_at = $2 where token_hash = $1")
            .bind(hash(&second.refresh))
            .bind(app.hub.clock.now())
            .execute(&mut *tx)
            .await
            .unwrap();
        sqlx::query(
            "insert into refresh_tokens (token_hash, family, client_id, epoch, issued_at, expires_at)
             select $2, family, client_id, epoch, issued_at, expires_at from refresh_tokens where token_hash = $1",
        )
        .bind(hash(&second.refresh))
        .bind(hash(third))
        .execute(&mut *tx)
        .await
        .unwrap();
        let theirs = async {
            if reuse {
                unauthenticated("stolen", refresh(&app, &first.refresh).await);
            } else {
                let body = json!({"refreshToken": first.refresh});
                app.ask("", "POST", "/v1/auth/revoke", Some(body)).await.expect(204);
            }
        };
        let held = async {
            until("the family waits for its row", async || {
                app.count("select count(*) from pg_locks where not granted").await > 0
            })
            .await;
            tx.commit().await.unwrap();
        };
        tokio::join!(theirs, held);
        unauthenticated("the third", refresh(&app, third).await);
    }
    app.done().await;
}

/// S0-29, S0-31, S0-32: a new secret without an overlap voids the old one and all it gave; with one both are good, with
/// all they gave, until it ends; then what the old one gave is over. What is revoked is void whatever comes after.
#[tokio::test]
async fn a_rotated_secret_ends_with_all_it_gave() {
    let app = App::new().await;
    let (partner, first, _) = app.partner(named("orders")).await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    let rotate = async |seconds: i64| {
        let made = flow::partner::rotate(&app.hub, permit, partner.partner_id, TimeDelta::seconds(seconds)).await;
        made.unwrap()
    };
    let void = async |what: &str, tokens: &Tokens| {
        unauthenticated(what, looks(&app, tokens).await);
        unauthenticated(what, refresh(&app, &tokens.refresh).await);
    };

    let old = signed_in(&app, &first).await;
    let second = rotate(0).await;
    assert_eq!(second.client_id, first.client_id, "S0-32: one key");
    unauthenticated("the secret before", try_sign_in(&app, &first).await);
    void("what it gave", &old).await;

    let old = signed_in(&app, &second).await;
    let third = rotate(3600).await;
    let (by_old, by_new) = (signed_in(&app, &second).await, signed_in(&app, &third).await);
    app.advance(3599);
    let old = refreshed(&app, &old.refresh).await;
    for tokens in [&old, &by_old, &by_new] {
        looks(&app, tokens).await.expect(200);
    }
    app.advance(1);
    unauthenticated("the secret before", try_sign_in(&app, &second).await);
    void("what it gave before the rotation", &old).await;
    void("what it gave after", &by_old).await;
    looks(&app, &by_new).await.expect(200);
    let by_new = refreshed(&app, &by_new.refresh).await;

    // The third overlaps with the fourth: a thief who has it must not outlive its revocation.
    let fourth = rotate(3600).await;
    looks(&app, &by_new).await.expect(200);
    let of_fourth = signed_in(&app, &fourth).await;
    flow::partner::revoke_key(&app.hub, permit, &first.client_id).await.unwrap();
    for key in [&first, &second, &third, &fourth] {
        unauthenticated("revoked", try_sign_in(&app, key).await);
    }
    void("what the third gave", &by_new).await;
    void("what the fourth gave", &of_fourth).await;
    let fifth = rotate(3600).await;
    for key in [&third, &fourth] {
        unauthenticated("revoked before the overlap", try_sign_in(&app, key).await);
    }
    void("what the fourth gave", &of_fourth).await;
    looks(&app, &signed_in(&app, &fifth).await).await.expect(200);
    app.done().await;
}

// ---- other processes

/// Another process of the same hub: its own memory, the same database and clock.
struct Other {
    hub: Hub,
    address: SocketAddr,
}

impl Other {
    async fn of(app: &App) -> Other {
        Other::with(app, &["--accept-loss"]).await
    }

    async fn with(app: &App, flags: &[&str]) -> Other {
        let parts = Parts {
            settings: settings(flags),
            store: crate::support::store(&app.url),
            providers: Providers::default(),
            clock: app.hub.clock.clone(),
            shutdown: Shutdown::new(),
            master_keys: vec![MASTER_KEY],
        };
        let hub = flow::start(parts).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        http::server::start(listener, api::router(&hub), &hub.shutdown);
        Other { hub, address }
    }

    async fn looks(&self, tokens: &Tokens) -> Answer {
        let request = reqwest::Client::new().get(format!("http://{}/v1/messages", self.address));
        Answer::read(request.bearer_auth(&tokens.access)).await
    }

    async fn done(self) {
        self.hub.shutdown.stop();
        assert!(self.hub.shutdown.drained(std::time::Duration::from_secs(20)).await);
        self.hub.store.close().await;
    }
}

/// S0-72: an inactive partner may not sign in, nor do anything with a token it has, at once where it was made so, and in
/// every other process when it is told or ten seconds later. Who it is must be right to be told. Active again, it signs in
/// anew.
#[tokio::test]
async fn an_inactive_partner_is_shut_out() {
    let app = App::new().await;
    let (partner, key, _) = app.partner(named("orders")).await;
    let (forgetful, told) = (Other::of(&app).await, Other::of(&app).await);
    worker::hints::start_listening(&told.hub, vec![Topic::Changed]);
    until("it listens", async || {
        app.count("select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'")
            .await
            > 0
    })
    .await;
    let tokens = signed_in(&app, &key).await;
    for other in [&forgetful, &told] {
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
    until("the other heard of it", async || told.looks(&tokens).await.status == 401).await;
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
    told.done().await;
    app.done().await;
}

/// S0-29, S0-30: the key that signs is replaced while tokens of both are good in every process; a lost one voids its
/// tokens at once; one that is over goes; and a hub that was off for months signs in at once.
#[tokio::test]
async fn signing_keys_are_replaced() {
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

// ---- the limit

/// A sign-in at one process, with these lines of a header that a proxy writes.
async fn sign_in_from(at: SocketAddr, lines: &[(&str, &str)], client_id: &str, client_secret: &str) -> Answer {
    let body = json!({"clientId": client_id, "clientSecret": client_secret});
    let mut request = reqwest::Client::new().post(format!("http://{at}/v1/auth/token"));
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    Answer::read(request.header("content-type", "application/json").body(body.to_string())).await
}

/// S0-35: ten failures for one client, and even the right secret waits, except where the client has signed in before;
/// after a minute nobody waits. An address that tries many clients waits with all of them.
#[tokio::test]
async fn failed_sign_ins_are_limited() {
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
async fn a_client_has_ten_failures_over_all_processes_and_addresses() {
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
async fn a_refresh_waits_for_its_address_alone() {
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
async fn an_address_behind_a_proxy_is_read_in_every_form() {
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

/// S0-35: without a proxy in front nobody can say to be somewhere else.
#[tokio::test]
async fn an_address_cannot_be_made_up() {
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
