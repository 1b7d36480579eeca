//! Erasure: a person's data goes from every table, and the search proves it.

use data_encoding::{BASE64, HEXLOWER};
use notihub::crypt::{Keyring, write_key};
use notihub::flow::partner::PartnerChange;
use notihub::flow::{self, erase, reseal, retain};
use notihub::hub::Parts;
use notihub::id::Tsid;
use notihub::model::access::principal::Actor;
use notihub::shutdown::Shutdown;
use notihub::store;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, MASTER_KEY, email, named, sign_in, slack_post};
use crate::support::database::{as_hub, as_superuser, store as open};
use crate::support::process::{Folder, Notihub};
use crate::support::sql::{move_send_records, rows_by_table};
use crate::user::on_behalf;

/// Every row of every table, as text.
async fn dump(app: &App) -> String {
    let tables = rows_by_table(app).await;
    assert!(tables.len() > 12, "{:?}", tables.keys());
    tables.into_values().map(|rows| rows.join("\n")).collect()
}

async fn erase(app: &App, recipient: &str) -> erase::Erased {
    let actor = Actor::local_admin("test".into());
    erase::erase(&app.hub, actor.admin_permit().unwrap(), recipient, None, |_| ()).await.unwrap()
}

fn left(erased: &erase::Erased) -> u64 {
    erased.left.values().sum()
}

/// A person's data goes from every table and is proven to be gone. The counts stay, the deliveries of other recipients
/// stay, waiting deliveries of the person are not sent, and a person with a similar address is not touched.
#[tokio::test]
async fn erased_person_is_in_no_table() {
    let app = App::new().await;
    let kim = "kim.min@example.com";
    let mut alone = email(kim);
    (alone["clientMsgId"], alone["metadata"]) =
        (json!("order kim.min@example.com"), json!({"who": "Kim.Min@example.com"}));
    let alone = app.post("/v1/messages", alone).await.expect(202).id();
    let mut shared = email(kim);
    shared["channels"][0]["to"] = json!([kim, "lee@example.com"]);
    let shared = app.post("/v1/messages", shared).await.expect(202).id();
    let mut named_in = email("ops@example.com");
    named_in["body"] = json!("New customer:\nkim.min@example.com.\nkim.min@example.com으로 보냈습니다");
    let named_in = app.post("/v1/messages", named_in).await.expect(202).id();
    let mut similar = email("jakim.min@example.com");
    similar["body"] = json!("Dear jakim.min@example.com, kim.min@example.com.org, xkim.min@example.com");
    let similar = app.post("/v1/messages", similar).await.expect(202).id();
    let hook = json!({"url": "https://hooks.example.com/x", "events": ["message.refused"], "contactEmail": kim,
        "description": "ask kim.min@example.com"});
    app.post("/v1/webhooks", hook).await.expect(201);
    app.work().await;
    let mut later = email(kim);
    later["scheduledAt"] = json!("2027-03-06T00:30:00Z");
    let later = app.post("/v1/messages", later).await.expect(202).id();
    let before = app.get("/v1/stats/daily").await.expect(200).body;

    let erased = erase(&app, kim).await;
    assert_eq!((erased.deliveries, erased.messages, erased.canceled, erased.in_flight), (3, 4, 1, 0), "{erased:?}");
    assert_eq!(left(&erased), 0, "{erased:?}");
    let all = dump(&app).await.to_lowercase();
    let theirs = all.matches(kim).count() - all.matches("jakim.min@example.com").count() - 2;
    assert_eq!(theirs, 0, "only within other addresses");
    let answer = app.message(&alone).await;
    assert_eq!(
        (&answer["contents"][0]["body"], &answer["title"], &answer["metadata"]),
        (&json!(""), &Value::Null, &json!({}))
    );
    assert_eq!(
        (&answer["deliveries"][0]["to"], &answer["deliveries"][0]["status"]),
        (&json!("erased"), &json!("SENT"))
    );
    let answer = app.message(&shared).await;
    assert_eq!(
        (&answer["deliveries"][0]["to"], &answer["deliveries"][1]["to"]),
        (&json!("erased"), &json!("lee@example.com"))
    );
    assert_eq!(answer["contents"][0]["body"], "It works.", "others got it too");
    assert_eq!(app.message(&named_in).await["contents"][0]["body"], "");
    assert_eq!(app.message(&later).await["status"], "CANCELED");
    let answer = app.message(&similar).await;
    let mut waits = email("lee@example.com");
    (waits["body"], waits["scheduledAt"]) = (json!("About kim.min@example.com."), json!("2027-03-05T01:30:00Z"));
    let waits = app.post("/v1/messages", waits).await.expect(202).id();
    let later_erased = erase(&app, kim).await;
    assert!(later_erased.in_flight == 1 && left(&later_erased) == 1, "nobody gets an empty message: {later_erased:?}");
    assert_eq!(app.message(&waits).await["contents"][0]["body"], "About kim.min@example.com.");
    assert!(answer["contents"][0]["body"].as_str().unwrap().starts_with("Dear jakim"), "{answer}");
    assert_eq!(app.get("/v1/stats/daily").await.expect(200).body, before);
    app.advance(86_400);
    app.work().await;
    assert_eq!(app.smtp.records().iter().filter(|mail| mail.to.contains(&kim.to_owned())).count(), 2);

    let again = erase(&app, kim).await;
    assert_eq!((again.deliveries, again.messages, left(&again)), (0, 1, 0), "once it was sent");
    app.done().await;
}

/// The proof can fail: data that the erasure did not reach is counted. A phone number is found in every form.
#[tokio::test]
async fn erasure_proof_finds_what_is_left() {
    let app = App::with(&["--mock=SMS"]).await;
    let body = json!({"type": "T", "body": "Call +82-10-1234-5678, 010-1234-5678로.",
        "channels": [{"channel": "SMS", "to": ["010-1234-5678", "010-9999-0000"]}]});
    let id = app.post("/v1/messages", body).await.expect(202).id();
    app.work().await;
    let erased = erase(&app, "01012345678").await;
    assert_eq!((erased.deliveries, left(&erased)), (1, 0), "{erased:?}");
    let answer = app.message(&id).await;
    assert_eq!(
        (&answer["deliveries"][0]["to"], &answer["deliveries"][0]["recipient"]),
        (&json!("erased"), &json!("erased"))
    );
    assert_eq!((&answer["deliveries"][1]["to"], &answer["contents"][0]["body"]), (&json!("010-9999-0000"), &json!("")));
    let actor = Actor::local_admin("test".into());
    let too_short = erase::erase(&app.hub, actor.admin_permit().unwrap(), "a@b", None, |_| ()).await;
    assert!(too_short.is_err());
    app.done().await;
}

const KIM: &str = "kim.min@example.com";

/// The address as texts have it.
fn forms() -> Vec<String> {
    vec![
        KIM.into(),
        "Kim <Kim.Min@Example.COM>".into(),
        "kim.min%40example.com".into(),
        "%3ckim.min@example.com%3e".into(),
        "kim.min&#64;example&period;com".into(),
        r"\u006bim.min\u0040example.com".into(),
        "kim.min=40example.com".into(),
        BASE64.encode(KIM.as_bytes()),
        BASE64.encode(format!("To: {KIM},").as_bytes()),
        HEXLOWER.encode(KIM.as_bytes()),
        "ｋｉｍ.min＠example.com".into(),
    ]
}

async fn run_sql(app: &App, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.db().await).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

async fn relay_all(app: &App) {
    let mut relayed = flow::relay::Relay::default();
    while flow::relay::relay(&app.hub, &mut relayed).await.unwrap() {}
}

/// C1: the address is planted in every place that a caller, a provider or a service can write, in every form; erased by
/// the command; and then in no column of any table. Places that erasing does not reach are reported, and fail the
/// command until the address is gone from them.
#[tokio::test]
async fn erased_address_in_every_form_and_place_is_gone() {
    let app = App::new().await;
    let accept = async |body: Value| app.post("/v1/messages", body).await.expect(202).id();
    let with = |field: &str, value: Value| {
        let mut body = email("lee@example.com");
        match field {
            "subject" | "html" => body["channels"][0][field] = value,
            _ => body[field] = value,
        }
        body
    };
    for form in forms() {
        accept(with("body", json!(format!("see {form} here")))).await;
        accept(with("title", json!(format!("about {form}")))).await;
        accept(with("subject", json!(form))).await;
        accept(with("html", json!(format!("<a href='mailto:{form}'>x</a>")))).await;
        accept(with("metadata", json!({"note": form}))).await;
        accept(with("metadata", json!({form.as_str(): 1}))).await;
        accept(with("metadata", json!({"orderRef": format!("order-{form}")}))).await;
        accept(with("clientMsgId", json!(format!("order-{form}")))).await;
        let mut slack = slack_post("x");
        slack["channels"][0]["blocks"] = json!([{"type": "section", "text": {"type": "mrkdwn", "text": form}}]);
        accept(slack).await;
        let refused = json!({"clientMsgId": format!("order-{form}"), "body": form, "who": {form.as_str(): form}});
        run_sql(&app, &format!("select notihub.enqueue('test', $x${refused}$x$)")).await;
    }
    accept(email(KIM)).await;
    let others = accept(with("body", json!("Dear min-kim.min@example.com"))).await;
    // Before there is an endpoint, which would be told of them.
    relay_all(&app).await;
    app.work().await;
    let hook = json!({"url": "https://hooks.example.com/x", "events": ["message.refused"], "contactEmail": KIM,
        "description": "ask Kim <kim.min@example.com>", "headers": {"x-owner": KIM}});
    let hook = app.post("/v1/webhooks", hook).await.expect(201).body["endpointId"].as_str().unwrap().to_owned();
    app.work().await;
    // What no caller can have a provider say here.
    move_send_records(&mut app.db().await.acquire().await.unwrap(), 1).await;
    let printed = BASE64.encode(format!("no mailbox <{KIM}>").as_bytes());
    run_sql(
        &app,
        &format!(
            "update attempts set detail = '550 <{KIM}>: no such user', provider_ref = 'r-{KIM}', receipt_code = \
                '{printed}' \
               where message_id = (select min(message_id) from attempts); \
             update deliveries set sent_ref = 'r-{KIM}' where sent_called_at is not null; \
             insert into provider_refs select 'p', 'r-{KIM}', shard, message_id, no, attempt from attempts limit 1; \
             insert into receipts (provider, event_key, received_at, provider_ref, detail, try_at, applied_at, effect) \
               values ('p', 'e-{KIM}', now(), '{KIM}', '{printed}', now(), now(), 'unmatched'); \
             insert into destination_paces values ('smtp', '{KIM}', now(), 1000, 0, 0, now()); \
             insert into alerts (cause, opened_at, seen_at, cleared_at, detail) values ('c', now(), now(), now(), \
                 '{printed}'); \
             insert into provider_holds values ('smtp', now(), now(), 'paused', 'by {KIM}')"
        ),
    )
    .await;
    let held = |all: &str, form: &str| {
        let form = form.to_lowercase();
        all.contains(&form) || all.contains(&form.replace('\\', "\\\\"))
    };
    let all = dump(&app).await.to_lowercase();
    assert!(forms().iter().chain([&printed]).all(|form| held(&all, form)), "planted");

    let folder = Folder::new();
    let run = async || {
        Notihub::new(&folder, &["partner", "erase", "--recipient", KIM, "--output=json"])
            .env("NOTIHUB_DATABASE_URL", as_hub(&app.url))
            .env("NOTIHUB_MASTER_KEY", write_key(&MASTER_KEY))
            .run()
            .await
    };
    let answer = run().await.expect(1).json();
    assert_eq!(answer["left"], json!([{"place": "endpoints.headers", "rows": 1}]), "{answer}");
    assert!(answer["notLookedFor"].as_str().unwrap().contains("backups"), "{answer}");
    app.ask(&app.fresh_token().await, "PATCH", &format!("/v1/webhooks/{hook}"), Some(json!({"headers": {}})))
        .await
        .expect(200);
    let answer = run().await.expect(0).json();
    assert_eq!(
        (&answer["left"], &answer["unopened"], &answer["unsearchedTables"]),
        (&json!([]), &json!(0), &json!([]))
    );
    assert!(answer["searchedRows"].as_u64().unwrap() > 300, "{answer}");

    let all = dump(&app).await.to_lowercase().replace("min-kim.min@example.com", "");
    let left: Vec<String> = forms().into_iter().chain([printed]).filter(|form| held(&all, form)).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(app.message(&others).await["contents"][0]["body"], "Dear min-kim.min@example.com");
    app.done().await;
}

/// C1: keys of messages to the person go as well. The same request again is known by the key's hash and sends nothing,
/// alone, in a batch and from SQL; another request under the key is refused; keys of others stay.
#[tokio::test]
async fn erased_keys_are_gone_and_stay_taken() {
    let app = App::new().await;
    let keyed = |to: &str, key: &str| {
        let mut body = email(to);
        body["clientMsgId"] = json!(key);
        body
    };
    let (one, two) = (keyed(KIM, "order-1"), keyed("lee@example.com", "order-2"));
    let id = app.post("/v1/messages", one.clone()).await.expect(202).id();
    app.post("/v1/messages", two.clone()).await.expect(202);
    app.work().await;
    let erased = erase(&app, KIM).await;
    assert_eq!((erased.messages, left(&erased)), (1, 0));
    let all = dump(&app).await;
    assert!(!all.contains("order-1") && all.contains("order-2"));
    assert_eq!(app.message(&id).await["clientMsgId"], Value::Null);
    let again = app.post("/v1/messages", one.clone()).await.expect(200);
    assert_eq!((again.id(), again.header("idempotent-replayed")), (id.clone(), "true"));
    app.post("/v1/messages", two.clone()).await.expect(200);
    let batch = app.post("/v1/messages/batch", json!({"messages": [one.clone(), keyed("lee@example.com", "order-3")]}));
    let batch = batch.await.expect(202).body;
    assert_eq!(batch["messages"][0]["messageId"], json!(id), "{batch}");
    app.post("/v1/messages", keyed("lee@example.com", "order-1")).await.refused(409, "idempotency_key_reused");
    run_sql(&app, &format!("select notihub.enqueue('test', '{one}')")).await;
    relay_all(&app).await;
    app.work().await;
    assert_eq!(app.smtp.records().iter().filter(|mail| mail.to.contains(&KIM.to_owned())).count(), 1);
    assert!(!dump(&app).await.contains("order-1"));
    // Another partner's key of the same name is its own.
    let (_, _, token) = app.partner(named("other")).await;
    app.ask(&token, "POST", "/v1/messages", Some(keyed("lee@example.com", "order-1"))).await.expect(202);
    app.work().await;
    app.advance(200 * 86_400);
    retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from erased_keys").await, 0, "as long as its message");
    app.done().await;
}

/// C1: the search takes tables and columns from the catalogue, so a table of a later migration is searched without a
/// change here. A table that the hub may not read is reported. A large one is searched row by row, and its progress is
/// reported.
#[tokio::test]
async fn erasure_searches_tables_from_the_catalogue() {
    let app = App::new().await;
    run_sql(
        &app,
        &format!(
            "create table public.later_area (id bigint primary key, note text, labels text[], extra jsonb, raw bytea); \
             create table public.secret_area (note text); \
             grant select on public.later_area to notihub_app; \
             insert into public.later_area select n, 'nothing here', null, '{{}}', null from generate_series(1, \
                 220000) n; \
             insert into public.later_area values (-1, 'is <{KIM}>', '{{x,order-{KIM}}}', '{{\"a\": [\"{KIM}\"]}}', \
                 '{KIM}')"
        ),
    )
    .await;
    let mut seen = Vec::new();
    let actor = Actor::local_admin("test".into());
    let heard = |progress: erase::Progress<'_>| {
        if let erase::Progress::Searched(rows, table) = progress {
            seen.push((rows, table.to_owned()));
        }
    };
    let erased = erase::erase(&app.hub, actor.admin_permit().unwrap(), KIM, None, heard).await.unwrap();
    let places: Vec<&str> = erased.left.keys().map(String::as_str).collect();
    assert_eq!(places, ["later_area.extra", "later_area.labels", "later_area.note", "later_area.raw"]);
    assert_eq!(erased.unsearched, ["secret_area"]);
    assert_eq!(seen.iter().filter(|(_, table)| table == "later_area").count(), 4, "twice in each search: {seen:?}");
    assert!(erased.searched > 220_000);
    let mut db = <sqlx::PgConnection as sqlx::Connection>::connect(&as_superuser(&app.url)).await.unwrap();
    sqlx::raw_sql("drop table public.later_area, public.secret_area").execute(&mut db).await.unwrap();
    app.done().await;
}

/// S0-23: a partner may want its content kept shorter than the hub keeps messages: contents and recipients go, outcomes
/// and statistics stay; what is still open waits.
#[tokio::test]
async fn content_is_removed_after_its_partners_retention() {
    let app = App::new().await;
    let change = PartnerChange { retention_days: Some(Some(3)), lookup_days: Some(30), ..named("brief") };
    let (_, brief, _) = app.partner(change).await;
    let post = async |body: Value| {
        let token = sign_in(&app.hub, &brief).await;
        app.ask(&token, "POST", "/v1/messages", Some(body)).await.expect(202).id()
    };
    post(email("old@example.com")).await;
    let mut open_ = email("open@example.com");
    open_["scheduledAt"] = json!("2027-03-15T00:00:00Z");
    post(open_).await;
    app.post("/v1/messages", email("others@example.com")).await.expect(202);
    app.work().await;
    app.advance(4 * 86_400);
    post(email("young@example.com")).await;
    app.work().await;
    retain::retain(&app.hub).await.unwrap();
    let all = dump(&app).await;
    assert!(!all.contains("old@example.com"), "gone");
    assert!(["open@", "others@", "young@"].iter().all(|kept| all.contains(kept)), "kept");
    assert_eq!(app.count("select count(*) from messages where detail ? 'erased'").await, 1);
    assert_eq!(app.count("select count(*) from deliveries where status = 'SENT'").await, 3);
    app.advance(10 * 86_400);
    app.work().await;
    retain::retain(&app.hub).await.unwrap();
    let all = dump(&app).await;
    assert!(["open@", "young@"].iter().all(|gone| !all.contains(gone)) && all.contains("others@"), "when it had ended");
    app.done().await;
}

/// Content sealed at rest: the database holds none of it, what is copied to another message does not open there, and a
/// new master key takes over while everything runs.
#[tokio::test]
async fn content_sealed_is_resealed_under_a_new_key() {
    let app = App::new().await;
    let (_, _, token) = app.partner(PartnerChange { encrypt_content: Some(true), ..named("sealed") }).await;
    let mut body = email("kim@example.com");
    (body["body"], body["title"], body["metadata"]) =
        (json!("CANARY body"), json!("CANARY title"), json!({"x": "CANARY"}));
    let post = async || app.ask(&token, "POST", "/v1/messages", Some(body.clone())).await.expect(202).id();
    let (one, two) = (post().await, post().await);
    app.work().await;
    assert!(!dump(&app).await.contains("CANARY"));
    assert!(app.smtp.records()[0].data.contains("CANARY body"), "and yet it is sent");
    let read = async |id: &str| app.ask(&token, "GET", &format!("/v1/messages/{id}"), None).await;
    assert_eq!(read(&one).await.expect(200).body["title"], "CANARY title");
    let list = app.ask(&token, "GET", "/v1/messages", None).await.expect(200).body;
    assert_eq!(list["items"][0]["title"], "CANARY title");

    // Endpoints are sealed as well: their secret, that before it, and their headers.
    let hook = json!({"url": "https://hooks.example.com/x", "events": ["message.refused"],
        "headers": {"authorization": "Bearer CANARY"}, "contactEmail": "kim@example.com"});
    let hook = app.ask(&token, "POST", "/v1/webhooks", Some(hook)).await.expect(201).body;
    let (hook_id, secret) = (hook["endpointId"].as_str().unwrap(), hook["secret"].as_str().unwrap());
    let rotated = app.ask(&token, "POST", &format!("/v1/webhooks/{hook_id}/rotate"), None).await.expect(200).body;
    let all = dump(&app).await;
    assert!([secret, rotated["secret"].as_str().unwrap(), "CANARY"].iter().all(|secret| !all.contains(secret)));

    // A partner's user key, and the token of a user's device.
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    flow::partner::rotate_user_key(&app.hub, permit, app.partner.partner_id, chrono::TimeDelta::zero()).await.unwrap();
    let device = app.http.post(app.uri("/api/v1/users/me/devices")).bearer_auth(&app.token).header("x-user", "u-1");
    let device = device.header("content-type", "application/json").body(r#"{"platform": "FCM", "token": "CANARY"}"#);
    Answer::read(device).await.expect(201);

    // A sealed room: a message that was edited.
    let made = json!({"type": "GROUP", "title": "Lunch", "encrypted": true});
    let room = on_behalf(&app, "u-1", "POST", "/api/v1/chatrooms", Some(made)).await.expect(201).body;
    let written = json!({"roomId": room["data"]["roomId"], "content": "CANARY talk"});
    let written = on_behalf(&app, "u-1", "POST", "/api/v1/messages", Some(written)).await.expect(201).body;
    let chat_path = format!("/api/v1/messages/{}", written["data"]["id"].as_str().unwrap());
    on_behalf(&app, "u-1", "PUT", &chat_path, Some(json!({"content": "CANARY again"}))).await.expect(200);
    let of_room = "select room_id, chat_id, content from chat_messages union all \
         select room_id, chat_id, content from chat_versions";
    let contents = async || sqlx::query_as::<_, (i64, i64, String)>(of_room).fetch_all(&app.db().await).await.unwrap();
    assert!(contents().await.iter().all(|(_, _, content)| content.starts_with("sealed:")));

    // Another hub, with a new key before the old one.
    let parts = Parts {
        settings: app.hub.settings.clone(),
        store: open(&app.url),
        providers: app.hub.providers.clone(),
        clock: app.hub.clock.clone(),
        shutdown: Shutdown::new(),
        master_keys: vec![[9; 32], MASTER_KEY],
    };
    let new = flow::start(parts).await.unwrap();
    let actor = Actor::local_admin("test".into());
    let resealed = reseal::reseal(&new, actor.admin_permit().unwrap()).await.unwrap();
    assert_eq!((resealed.signing_keys, resealed.messages, resealed.endpoints, resealed.unopened), (1, 2, 1, 0));
    assert_eq!((resealed.user_keys, resealed.devices, resealed.chat_contents), (1, 1, 2));
    let again = reseal::reseal(&new, actor.admin_permit().unwrap()).await.unwrap();
    assert_eq!((again.messages, again.endpoints, again.user_keys, again.devices), (0, 0, 0, 0), "once is enough");
    assert_eq!(again.chat_contents, 0);
    let details: Vec<String> = sqlx::query_scalar("select detail::text from messages order by message_id")
        .fetch_all(&app.db().await)
        .await
        .unwrap();
    let only_new = Keyring::new([[9; 32]]);
    let opened = contents().await.into_iter().map(|(room_id, chat_id, content)| {
        store::chat_message::decode(&only_new, Tsid(room_id), Tsid(chat_id), &content).unwrap().text
    });
    assert_eq!(opened.collect::<Vec<_>>(), ["CANARY again", "CANARY talk"]);
    for (id, detail) in [&one, &two].into_iter().zip(&details) {
        let detail = store::message::decode_detail(&only_new, id.parse().unwrap(), detail).unwrap();
        assert_eq!(detail.title.as_deref(), Some("CANARY title"));
    }
    assert!(
        store::message::decode_detail(&only_new, two.parse().unwrap(), &details[0]).is_err(),
        "bound to its message"
    );
    let hook_id = hook_id.parse().unwrap();
    let endpoint = store::endpoint::load(app.hub.store.api(), &only_new, &[hook_id]).await.unwrap().remove(0);
    assert_eq!(Some(endpoint.secret.as_str()), rotated["secret"].as_str());
    assert_eq!(endpoint.previous_secret.map(|former| former.0).as_deref(), Some(secret));
    assert_eq!(endpoint.headers["authorization"], "Bearer CANARY");
    let only_old = Keyring::new([MASTER_KEY]);
    assert!(store::endpoint::load(app.hub.store.api(), &only_old, &[hook_id]).await.unwrap().is_empty());
    new.shutdown.stop();
    new.store.close().await;
    app.done().await;
}
