//! Partners and keys: made, changed and rotated by admins and by the program.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use chrono::TimeDelta;
use notihub::flow::partner::Credentials;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::partner::Partner;
use notihub::{flow, store};
use serde_json::{Value, json};

use crate::access::told;
use crate::support::app::{Answer, App, email, sign_in};
use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub, fsck, on};
use crate::support::wait::until;

/// Fault D2: partners made seconds apart spread over all shards.
#[tokio::test]
async fn partners_created_seconds_apart_spread_over_all_shards() {
    let app = App::new().await;
    let admin = app.staff(StaffRole::Admin).await;
    for n in 0..100 {
        let body = json!({"name": format!("service-{n}")});
        app.ask(&admin, "POST", "/v1/partners", Some(body)).await.expect(201);
        app.advance(7);
    }
    let shards: Vec<(i16, i64)> = sqlx::query_as("select shard, count(*) from partners group by shard order by shard")
        .fetch_all(&app.db().await)
        .await
        .unwrap();
    assert_eq!(shards.len(), 8, "{shards:?}");
    assert!(shards.iter().all(|(_, partners)| (3..=26).contains(partners)), "{shards:?}");
    app.done().await;
}

/// The audit log, the newest first.
async fn audit(app: &App, admin: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/audit?limit=200{query}");
    app.ask(admin, "GET", &path, None).await.expect(200).body["items"].as_array().unwrap().clone()
}

/// S0-32, S0-33, S0-34: an admin makes, lists, changes and rotates partners and keys; secrets are shown once; names are
/// unique; what is wrong is refused; and each change is in the audit log with who, what, from where, before and after,
/// for good.
#[tokio::test]
async fn partner_created_by_an_admin_is_audited() {
    let app = App::new().await;
    let actor = Actor::local_admin("test".into());
    let staff =
        flow::partner::create_key(&app.hub, actor.admin_permit().unwrap(), StaffRole::Admin, "kim").await.unwrap();
    let admin = sign_in(&app.hub, &staff).await;
    let ask = async |method: &str, path: &str, body: Value| app.ask(&admin, method, path, Some(body)).await;

    let made = ask("POST", "/v1/partners", json!({"name": "orders", "retentionDays": 7})).await.expect(201);
    let id = made.body["partnerId"].as_str().unwrap().to_owned();
    let path = format!("/v1/partners/{id}");
    assert_eq!(made.header("location"), path);
    let secret = made.body["clientSecret"].as_str().unwrap().to_owned();
    let defaults = json!({"code": "0000", "partnerId": id, "name": "orders", "status": "ACTIVE", "rateLimitTps": 1000,
        "lookupDays": 1, "retentionDays": 7, "timeZone": "Asia/Seoul", "region": "KR", "channels": null,
        "capabilities": ["schedule", "cancel"], "encryptContent": false, "signUp": false});
    let found = app.ask(&admin, "GET", &path, None).await.expect(200);
    assert_eq!(found.body, defaults, "and no secret");
    app.ask(&admin, "GET", made.header("location"), None).await.expect(200);

    for (body, reason) in [
        (json!({}), "required"),
        (json!({"name": "orders"}), "name_taken"),
        (json!({"name": "notihub"}), "name_reserved"),
        (json!({"name": "NotiHub"}), "name_reserved"),
        (json!({"name": "notihub-alerts"}), "name_reserved"),
        (json!({"name": ""}), "empty"),
        (json!({"name": "a\nb"}), "control_character"),
        (json!({"name": "a\0b"}), "control_character"),
        (json!({"name": "x".repeat(65)}), "content_too_long"),
        (json!({"name": "x", "timeZone": "Mars/Olympus"}), "tz_unknown"),
        (json!({"name": "x", "timeZone": "+09"}), "tz_unknown"),
        (json!({"name": "x", "region": "kr"}), "region_invalid"),
        (json!({"name": "x", "rateLimitTps": 0}), "min"),
        (json!({"name": "x", "rateLimitTps": 1_000_001}), "max"),
        (json!({"name": "x", "lookupDays": 0}), "min"),
        (json!({"name": "x", "retentionDays": 3651}), "max"),
        (json!({"name": "x", "retentionDays": 1.5}), "type_mismatch"),
        (json!({"name": "x", "status": "SLEEPING"}), "enum"),
        (json!({"name": "x", "channels": ["PIGEON"]}), "enum"),
        (json!({"name": "x", "capabilities": ["fly"]}), "enum"),
        (json!({"name": "x", "clientSecret": "mine"}), "unknown_field"),
        (json!({"name": "x", "shard": 3}), "unknown_field"),
        (json!({"name": "x", "partnerId": id}), "unknown_field"),
    ] {
        ask("POST", "/v1/partners", body.clone()).await.refused(422, reason);
        if reason != "required" && body["name"] != json!("orders") && !reason.starts_with("tz") {
            ask("PATCH", &path, body).await.refused(422, reason);
        }
    }
    ask("PATCH", &path, json!({"timeZone": "Asia/Tokyo"})).await.refused(422, "not_changeable");
    assert_eq!(app.ask(&admin, "GET", &path, None).await.expect(200).body, defaults, "nothing of it was done");
    ask("POST", "/v1/partners", json!({"name": "billing"})).await.expect(201);
    ask("PATCH", &path, json!({"name": "billing"})).await.refused(422, "name_taken");
    ask("PATCH", "/v1/partners/0000000000000", json!({})).await.refused(404, "partner_unknown");

    // What is left out stays; null empties where nothing is something.
    let set = ask("PATCH", &path, json!({"channels": ["SMS", "EMAIL"], "rateLimitTps": 5})).await.expect(200).body;
    assert_eq!((&set["channels"], &set["retentionDays"]), (&json!(["SMS", "EMAIL"]), &json!(7)));
    let set = ask("PATCH", &path, json!({"retentionDays": null})).await.expect(200).body;
    assert_eq!((&set["channels"], &set["retentionDays"]), (&json!(["SMS", "EMAIL"]), &json!(null)));
    let set = ask("PATCH", &path, json!({"channels": null})).await.expect(200).body;
    assert_eq!((&set["channels"], &set["rateLimitTps"]), (&json!(null), &json!(5)));
    let nothing = json!({"name": null, "status": null, "rateLimitTps": null, "lookupDays": null, "region": null});
    assert_eq!(ask("PATCH", &path, nothing).await.expect(200).body, set, "elsewhere it is like leaving it out");

    // Names, a page at a time.
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = app.ask(&admin, "GET", &format!("/v1/partners?limit=1{after}"), None).await.expect(200).body;
        names.push(page["items"][0]["name"].as_str().unwrap().to_owned());
        assert!(!page.to_string().contains("Secret"));
        match page["nextAfter"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["billing", "orders", "test"]);

    // Keys.
    let rotated = ask("POST", &format!("{path}/key/rotate"), json!({"overlapSeconds": 60})).await.expect(200).body;
    assert_eq!(rotated["clientId"], made.body["clientId"], "S0-32: one key");
    assert_ne!(rotated["clientSecret"], made.body["clientSecret"]);
    for (body, reason) in [
        (json!({"overlapSeconds": -1}), "min"),
        (json!({"overlapSeconds": 2_592_001}), "max"),
        (json!({"overlap": 1}), "unknown_field"),
    ] {
        ask("POST", &format!("{path}/key/rotate"), body).await.refused(422, reason);
    }
    for (body, reason) in [
        (json!({"name": "x", "role": "PARTNER"}), "enum"),
        (json!({"name": "x", "role": "ROOT"}), "enum"),
        (json!({"name": "x"}), "required"),
        (json!({"role": "ADMIN"}), "required"),
        (json!({"name": "x", "role": "ADMIN", "partnerId": id}), "unknown_field"),
    ] {
        ask("POST", "/v1/keys", body).await.refused(422, reason);
    }
    let key = ask("POST", "/v1/keys", json!({"name": "lee", "role": "OPERATOR"})).await.expect(201).body;
    let key_id = key["clientId"].as_str().unwrap();
    let again = ask("POST", &format!("/v1/keys/{key_id}/rotate"), json!({})).await.expect(200).body;
    app.ask(&admin, "DELETE", &format!("/v1/keys/{key_id}"), None).await.expect(204);
    let listed = app.ask(&admin, "GET", "/v1/keys", None).await.expect(200);
    let of = |id: &Value| listed.body["items"].as_array().unwrap().iter().find(|k| k["clientId"] == *id).unwrap();
    assert!(of(&key["clientId"])["revokedAt"].is_string());
    assert!(of(&rotated["clientId"])["formerSecretGoodUntil"].is_string());
    assert_eq!(of(&rotated["clientId"])["partnerId"], json!(id));

    // All of it is written down.
    let log = audit(&app, &admin, &format!("&actor={}", staff.client_id)).await;
    let deeds: Vec<(&str, &str)> = log
        .iter()
        .filter(|e| e["action"] != "look")
        .map(|e| (e["action"].as_str().unwrap(), e["object"].as_str().unwrap_or("-")))
        .collect();
    let billing = deeds.iter().filter(|d| d.0 == "partner.create").map(|d| d.1).find(|o| *o != id).unwrap();
    let wanted = [
        ("key.revoke", key_id),
        ("key.rotate", key_id),
        ("key.create", key_id),
        ("key.rotate", rotated["clientId"].as_str().unwrap()),
        ("partner.update", &id),
        ("partner.update", &id),
        ("partner.update", &id),
        ("partner.update", &id),
        ("partner.create", billing),
        ("partner.create", &id),
        ("sign_in", "-"),
    ];
    // A refused request changes nothing and leaves no entry. The first sign-in came from the machine itself.
    assert_eq!(deeds, wanted, "{log:#?}");
    for entry in log.iter().filter(|e| e["action"] != "sign_in") {
        assert_eq!((&entry["role"], &entry["address"]), (&json!("ADMIN"), &json!("127.0.0.1")), "{entry}");
        assert!(entry["requestId"].as_str().is_some_and(|id| id.len() == 13), "{entry}");
    }
    let update = log.iter().filter(|e| e["action"] == "partner.update").nth(2).unwrap();
    assert_eq!((&update["before"]["retentionDays"], &update["after"]["retentionDays"]), (&json!(7), &json!(null)));
    assert_eq!(update["before"]["channels"], update["after"]["channels"]);
    let own = app.ask(&admin, "GET", &format!("{path}/audit"), None).await.expect(200).body;
    let own: Vec<_> = own["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        own,
        ["key.rotate", "partner.update", "partner.update", "partner.update", "partner.update", "partner.create"]
    );
    let all = format!("{log:?}{}{}", listed.text, found.text);
    for secret in [&secret, rotated["clientSecret"].as_str().unwrap(), again["clientSecret"].as_str().unwrap()] {
        assert!(!all.contains(secret), "a secret is shown twice");
    }

    // A look is written down, without what it asked for.
    let operator = app.staff(StaffRole::Operator).await;
    app.ask(&operator, "GET", "/v1/messages?to=kim@example.com", None).await.expect(200);
    let looks = audit(&app, &admin, "&action=look").await;
    assert!(looks.iter().any(|e| e["object"] == "/v1/messages" && e["role"] == "OPERATOR"), "{looks:?}");
    assert!(!format!("{looks:?}").contains("kim@example.com"));

    // For good.
    for sql in ["update audit set actor = 'nobody'", "delete from audit", "truncate audit"] {
        let refused = sqlx::raw_sql(sql).execute(&app.db().await).await.unwrap_err();
        assert!(refused.to_string().contains("only ever added to"), "{sql}: {refused}");
    }
    app.done().await;
}

/// S0-32, S0-34: whatever happens at the same moment, a name has one partner and a partner has one key.
#[tokio::test(flavor = "multi_thread")]
async fn partner_name_raced_for_is_created_once() {
    let app = App::new().await;
    let admin = app.staff(StaffRole::Admin).await;
    for round in 0..10 {
        let body = json!({"name": format!("made {round}")});
        let all = (0..8).map(|_| app.ask(&admin, "POST", "/v1/partners", Some(body.clone())));
        let answers = futures_util::future::join_all(all).await;
        let made: Vec<_> = answers.iter().filter(|a| a.status == 201).collect();
        assert_eq!(made.len(), 1);
        for answer in answers.into_iter().filter(|a| a.status != 201) {
            answer.refused(422, "name_taken");
        }
        let mut ids = Vec::new();
        for n in 0..6 {
            let made = app.ask(&admin, "POST", "/v1/partners", Some(json!({"name": format!("{round} {n}")}))).await;
            ids.push(made.expect(201).body["partnerId"].as_str().unwrap().to_owned());
        }
        let paths: Vec<String> = ids.iter().map(|id| format!("/v1/partners/{id}")).collect();
        let body = json!({"name": format!("renamed {round}")});
        let all = paths.iter().map(|path| app.ask(&admin, "PATCH", path, Some(body.clone())));
        let answers = futures_util::future::join_all(all).await;
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
        for answer in answers.into_iter().filter(|a| a.status != 200) {
            answer.refused(422, "name_taken");
        }
    }
    // A partner from before there were keys: the first rotation makes its first key.
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    for n in 0..10 {
        let old = Partner::new(app.hub.next_id(), format!("old {n}"), 0);
        assert!(store::partner::insert(app.hub.store.api(), &old, app.hub.clock.now()).await.unwrap());
        let all = (0..6).map(|_| flow::partner::rotate(&app.hub, permit, old.partner_id, TimeDelta::hours(1)));
        let made = futures_util::future::join_all(all).await;
        let ids: BTreeSet<String> = made.iter().flatten().map(|c| c.client_id.clone()).collect();
        assert_eq!(ids.len(), 1, "every secret that was shown is of the one key");
    }
    let doubled = "insert into keys (client_id, role, partner_id, name, secret_hash, created_at)
        select 'second', role, partner_id, name, secret_hash, created_at from keys where partner_id is not null limit \
            1";
    let refused = sqlx::raw_sql(doubled).execute(&app.db().await).await.unwrap_err();
    let constraint = refused.as_database_error().and_then(|told| told.constraint().map(str::to_owned));
    assert_eq!(constraint.as_deref(), Some("uk_key_partner"));
    app.done().await;
}

/// Of what `partner create`, `rotate` or `bootstrap` printed as text.
fn shown(text: &str) -> Credentials {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    Credentials { client_id: field("clientId"), client_secret: field("clientSecret") }
}

/// S0-29, S0-32, S3-17, S3-39: from nothing to a posted message with the program alone, each command in both of its
/// forms, and a remedy with each error.
#[tokio::test]
async fn partner_commands_work_at_a_terminal() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let run = async |args: &[&str]| on(&folder, &url, args).run().await;
    let json_of = async |args: &[&str]| run(&[args, &["--output=json"]].concat()).await.expect(0).json();
    let mut serve = on(&folder, &url, &["serve", "--work", "--listen=127.0.0.1:0"]).start();
    let address = serve.address().await;
    let hub = format!("--url=http://{address}");
    let _already = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let signs_in = async |key: &Credentials| {
        let body = serde_json::to_string(key).unwrap();
        let request = http.post(format!("http://{address}/v1/auth/token")).header("content-type", "application/json");
        Answer::read(request.body(body)).await
    };
    let token =
        async |key: &Credentials| signs_in(key).await.expect(200).body["accessToken"].as_str().unwrap().to_owned();

    let admin = shown(&run(&["partner", "bootstrap"]).await.expect(0).stdout);
    let second = run(&["partner", "bootstrap"]).await.expect(1);
    assert!(second.stderr.contains("notihub key create --role ADMIN"), "{}", second.stderr);
    let made = json_of(&["partner", "create", "orders", "--rate-limit-tps=50", "--channels=SMS,EMAIL"]).await;
    assert_eq!((&made["rateLimitTps"], &made["channels"]), (&json!(50), &json!(["SMS", "EMAIL"])));
    let orders = told(&made);
    let billing = shown(&run(&["partner", "create", "billing", "--lookup-days=3"]).await.expect(0).stdout);
    for key in [&admin, &orders, &billing] {
        token(key).await;
    }

    // As with curl.
    let bearer = token(&orders).await;
    let request = http.post(format!("http://{address}/v1/messages")).bearer_auth(&bearer);
    let request = request.header("content-type", "application/json").body(email("kim@example.com").to_string());
    Answer::read(request).await.expect(202);
    let request = http.get(format!("http://{address}/v1/partners")).bearer_auth(token(&admin).await);
    assert_eq!(Answer::read(request).await.expect(200).body["items"].as_array().unwrap().len(), 2);

    let listed = json_of(&["partner", "list"]).await;
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["billing", "orders"]);
    let text = run(&["partner", "list"]).await.expect(0).stdout;
    assert!(text.contains("orders") && text.contains("50/s") && text.contains("SMS, EMAIL"), "{text}");
    let id = made["partnerId"].as_str().unwrap();
    let by_id = json_of(&["partner", "show", id]).await;
    assert_eq!(by_id, json_of(&["partner", "show", "orders"]).await);
    assert!(by_id.get("clientSecret").is_none());
    assert!(run(&["partner", "show", "orders"]).await.expect(0).stdout.contains(id));
    let set = json_of(&["partner", "set", "orders", "--name=sales", "--may-cancel=false"]).await;
    assert_eq!((&set["name"], &set["mayCancel"], &set["rateLimitTps"]), (&json!("sales"), &json!(false), &json!(50)));
    assert!(run(&["partner", "set", "sales", "--rate-limit-tps=60"]).await.expect(0).stdout.contains("60/s"));

    // A new secret, with both good for a while, and then without.
    let rotated = shown(&run(&["partner", "rotate", "sales", "--overlap-seconds=600"]).await.expect(0).stdout);
    token(&orders).await;
    token(&rotated).await;
    let last = told(&json_of(&["partner", "rotate", "sales"]).await);
    assert_eq!((signs_in(&orders).await.status, signs_in(&rotated).await.status), (401, 401));
    token(&last).await;
    run(&["partner", "set", "sales", "--status=INACTIVE"]).await.expect(0);
    // The other process is notified after the commit, which is not yet when the command ends.
    until("the partner is inactive", async || signs_in(&last).await.status == 403).await;
    assert_eq!(signs_in(&last).await.refused(403, "partner_inactive").body["code"], "E008");
    run(&["partner", "set", "sales", "--status=ACTIVE"]).await.expect(0);

    let operator = shown(&run(&["key", "create", "kim"]).await.expect(0).stdout);
    let other = told(&json_of(&["key", "create", "lee", "--role=ADMIN"]).await);
    let keys = json_of(&["key", "list"]).await;
    let role_of = |key: &Credentials| {
        let listed = keys["items"].as_array().unwrap().iter().find(|k| k["clientId"] == key.client_id.as_str());
        listed.unwrap()["role"].as_str().unwrap().to_owned()
    };
    assert_eq!([&admin, &operator, &other, &orders].map(role_of), ["ADMIN", "OPERATOR", "ADMIN", "PARTNER"]);
    assert!(!keys.to_string().contains("Secret"));
    let renewed = told(&json_of(&["key", "rotate", &operator.client_id]).await);
    assert_eq!(signs_in(&operator).await.status, 401);
    token(&renewed).await;
    run(&["key", "revoke", &other.client_id]).await.expect(0);
    assert_eq!(signs_in(&other).await.status, 401);
    assert_eq!(json_of(&["key", "revoke", &other.client_id]).await["revoked"], json!(other.client_id));
    assert!(run(&["key", "list"]).await.expect(0).stdout.contains("revoked"));
    let before = token(&last).await;
    let kid = json_of(&["key", "rotate-signing"]).await;
    assert_eq!(kid["atOnce"], json!(false));
    let asks = async |token: &str| {
        let request = http.get(format!("http://{address}/v1/messages")).bearer_auth(token);
        Answer::read(request).await.status
    };
    assert_eq!(asks(&before).await, 200);
    assert!(run(&["key", "rotate-signing", "--at-once"]).await.expect(0).stdout.contains("void"));
    until("the hub has heard of it", async || asks(&before).await == 401).await;
    assert_eq!(asks(&token(&last).await).await, 200);
    // At a terminal elsewhere: in the environment, and never on the command line's echo.
    let as_billing = |args: &[&str]| {
        on(&folder, &url, args)
            .env("NOTIHUB_CLIENT_ID", &billing.client_id)
            .env("NOTIHUB_CLIENT_SECRET", &billing.client_secret)
    };
    let send = ["send", &hub, "--email=kim@example.com", "--subject=Hi", "--body=Hello", "--wait", "--output=json"];
    let sent = as_billing(&send).run().await.expect(0).json();
    let status = as_billing(&["status", &hub, sent["messageId"].as_str().unwrap()]).run().await.expect(0);
    assert!(status.stdout.contains("COMPLETED"));
    assert!(as_billing(&["tail", &hub, "--no-follow"]).run().await.expect(0).stdout.lines().count() == 1);

    // Each error names its remedy.
    for (args, code, remedy) in [
        (&["partner", "show", "nobody"][..], 1, "notihub partner list"),
        (&["partner", "set", "nobody", "--name=x"], 1, "notihub partner list"),
        (&["partner", "rotate", "nobody"], 1, "notihub partner list"),
        (&["partner", "create", "billing"], 1, "another partner"),
        (&["partner", "set", "sales", "--name=billing"], 1, "another partner"),
        (&["partner", "create", "x", "--time-zone=Mars/Olympus"], 1, "Asia/Seoul"),
        (&["partner", "create", ""], 2, "one line"),
        (&["partner", "create", "a\nb"], 2, "one line"),
        (&["partner", "set", "sales", "--name= "], 2, "one line"),
        (&["key", "create", "a\u{202e}b"], 2, "one line"),
        (&["key", "create", "x", "--role=PARTNER"], 2, "notihub partner create"),
        (&["key", "create", "x", "--role=ROOT"], 2, "PARTNER, OPERATOR, ADMIN"),
        (&["key", "rotate", "nobody"], 1, "notihub key list"),
        (&["key", "revoke", "nobody"], 1, "notihub key list"),
        (&["partner", "set", "sales", "--status=ASLEEP"], 2, "ACTIVE"),
        (&["partner", "set", "sales", "--channels=PIGEON"], 2, "KAKAO_ALIMTALK"),
        (&["tail", &hub, "--no-follow"], 1, "NOTIHUB_CLIENT_SECRET"),
        (&["tail", &hub, "--no-follow", "--client-id=x"], 2, "both"),
        (&["tail", &hub, "--no-follow", "--client-id=x", "--client-secret=y"], 1, "clientSecret"),
    ] {
        let data = folder.path().join("empty");
        let ended = on(&folder, &url, args).env("NOTIHUB_DATA_DIR", data).run().await.expect(code);
        assert!(ended.stderr.contains(remedy), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.matches("name_taken").count() <= 1, "said once: {}", ended.stderr);
    }
    serve.stop().await.expect(0).logged_json();
    fsck(&folder, &url).await;
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let resealed = on(&folder, &url, &["key", "reseal", "--output=json"]).env("NOTIHUB_MASTER_KEY", key).run().await;
    assert!(resealed.expect(0).json()["signingKeys"].as_i64().is_some_and(|n| n > 0));
    // Without it the log says what is missing, and work goes on under a new key.
    let unopened = run(&["partner", "list"]).await.expect(0);
    assert!(unopened.stderr.contains("--master-key"), "{}", unopened.stderr);
}

/// S0-29, S3-6, S3-17: an `up` makes its keys once and keeps them, readable by its owner alone; at its own machine no
/// other proof is needed.
#[tokio::test]
async fn up_keeps_its_keys() {
    let folder = Folder::new();
    let data = format!("--data-dir={}", folder.data().display());
    let mut kept = Vec::new();
    for round in 0..2 {
        let mut up = Notihub::new(&folder, &["up", "--listen=127.0.0.1:0", &data]).start();
        let hub = format!("--url=http://{}", up.address().await);
        let run = async |args: &[&str]| Notihub::new(&folder, &[args, &[&data]].concat()).run().await;
        let sent = run(&["send", &hub, "--email=kim@example.com", "--subject=s", "--body=b", "--wait"]).await;
        assert!(sent.expect(0).stdout.contains("COMPLETED"));
        assert_eq!(run(&["tail", &hub, "--no-follow"]).await.expect(0).stdout.lines().count(), round + 1);
        let partners = Notihub::new(&folder, &["partner", &data, "list", "--output=json"]).run().await.expect(0).json();
        assert_eq!(partners["items"].as_array().unwrap().len(), 1);
        let files = ["credentials.json", "master.key"].map(|name| folder.data().join(name));
        for file in &files {
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        kept.push(files.map(|file| std::fs::read_to_string(file).unwrap()));
        let ended = up.stop().await.expect(0);
        let secret = kept[round][1].trim().to_owned();
        assert!(
            !ended.stderr.contains(&secret) && !ended.stdout.contains(&secret),
            "the master key is printed nowhere"
        );
    }
    assert_eq!(kept[0], kept[1]);
}
