//! Refresh tokens: each is good once, and a reuse ends its family.

use chrono::TimeDelta;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use notihub::crypt::keyed_hash;
use notihub::flow;
use notihub::flow::sign_in::maintain_keys;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::access::{Tokens, looks, refresh, refreshed, signed_in, signing_key, try_sign_in, unauthenticated};
use crate::support::app::{App, named};
use crate::support::wait::until;

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

/// S0-29, S0-31: a reader of the database, a dump or a backup cannot sign in (A8): no secret and no token is in it.
#[tokio::test]
async fn database_holds_no_secret_and_no_token() {
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

/// S0-31: each refresh token is good once, for thirty days; one that is used again after its owner's race voids all
/// that came from its sign-in, and nothing else; a revoked one likewise (A6).
#[tokio::test]
async fn refresh_token_reused_voids_its_family() {
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
    let shown = app.ask(&admin, "GET", &path, None).await.expect(200).body;
    let shown = shown["items"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "once, however often: {shown:?}");
    assert_eq!(
        (&shown[0]["actor"], &shown[0]["role"], &shown[0]["address"]),
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
async fn refresh_token_used_at_the_same_moment_is_good_once() {
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
async fn refresh_token_written_during_a_revocation_is_void() {
    let app = App::new().await;
    for (reuse, third) in [(true, "nhr_of_a_thief"), (false, "nhr_of_its_owner")] {
        let first = signed_in(&app, &app.credentials).await;
        let second = refreshed(&app, &first.refresh).await;
        app.advance(1);
        // Another transaction is using up the second token: it holds the row and has written the third.
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
async fn secret_rotated_voids_its_tokens() {
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

    // The third overlaps with the fourth: a stolen third secret must not outlive its revocation.
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
