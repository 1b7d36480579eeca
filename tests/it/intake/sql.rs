//! SQL intake: what a service enqueues inside its own transaction, with a role that can do nothing else.

use std::sync::atomic::{AtomicU32, Ordering};

use notihub::flow::{fsck, relay, retain};
use notihub::store;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::app::{App, email, slack_post};
use crate::support::sql::execute;

/// A service's own connection to the shared database: its login role was granted `notihub_enqueue` and nothing else.
async fn service(app: &App) -> PgConnection {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Roles belong to the server, which other tests use too.
    let name = format!("orders_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut conn = PgConnection::connect(&app.url).await.unwrap();
    let ddl = format!("create role {name} login in role notihub_enqueue; set session authorization {name}");
    let grant = format!("insert into intake_grants select '{name}', partner_id, false, now() from partners");
    sqlx::raw_sql(sqlx::AssertSqlSafe(grant)).execute(&mut conn).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&mut conn).await.unwrap();
    conn
}

async fn enqueue(conn: &mut PgConnection, partner: &str, message: &Value) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select notihub.enqueue($1, $2::jsonb)")
        .bind(partner)
        .bind(message.to_string())
        .fetch_one(conn)
        .await
}

/// What the database answered instead: its SQLSTATE, message, detail and whether there was a hint.
async fn refused(conn: &mut PgConnection, sql: &str) -> (String, String, String, bool) {
    let e = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.expect_err(sql);
    let shown = e.as_database_error().expect("the database's answer");
    let shown = shown.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    (
        shown.code().to_owned(),
        shown.message().to_owned(),
        shown.detail().unwrap_or_default().to_owned(),
        shown.hint().is_some(),
    )
}

/// Runs relays until nothing is left to do.
async fn relay_all(app: &App) {
    let mut relay = relay::Relay::default();
    while relay::relay(&app.hub, &mut relay).await.unwrap() {}
}

async fn messages(app: &App) -> i64 {
    app.count("select count(*) from messages").await
}

async fn waiting(app: &App) -> i64 {
    app.count("select count(*) from notihub.requests").await
}

/// Every refused request of the caller, the newest first.
async fn refusals(app: &App) -> Vec<Value> {
    let listed = app.get("/v1/intake/refused?limit=200").await.expect(200).body;
    listed["items"].as_array().unwrap().clone()
}

/// Makes another partner, on a shard of its own, as an admin would.
async fn partner(app: &App, name: &str) -> notihub::model::partner::Partner {
    let partner = notihub::model::partner::Partner::new(app.hub.next_id(), name.to_owned(), 0);
    assert!(store::partner::insert(app.hub.store.api(), &partner, app.hub.clock.now()).await.unwrap());
    let grant = "insert into intake_grants select distinct g.role_name, p.partner_id, false, now() from intake_grants \
        g, \
                 partners p on conflict do nothing";
    execute(app, grant).await;
    partner
}

/// A request that a service enqueues in its own transaction is a message when that commits, and never was when it does
/// not.
#[tokio::test]
async fn sql_request_is_delivered_after_commit_alone() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    let mut body = email("kim@example.com");
    body["clientMsgId"] = json!("order-1");

    let mut tx = orders.begin().await.unwrap();
    enqueue(&mut tx, "test", &email("nobody@example.com")).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = orders.begin().await.unwrap();
    let request = enqueue(&mut tx, "test", &body).await.unwrap();
    assert!(request > 0);
    app.work().await;
    assert_eq!((messages(&app).await, app.smtp.records().len()), (0, 0), "not committed yet");
    tx.commit().await.unwrap();

    app.work().await;
    let mails = app.smtp.records();
    assert_eq!(mails.iter().map(|mail| &mail.to[0]).collect::<Vec<_>>(), ["kim@example.com"]);
    assert_eq!((messages(&app).await, waiting(&app).await), (1, 0));
    let listed = app.get("/v1/messages?clientMsgId=order-1").await.expect(200).body;
    assert_eq!(listed["items"][0]["status"], "COMPLETED");
    assert_eq!(refusals(&app).await, Vec::<Value>::new());
    app.done().await;
}

/// A partner is named by its name or its id; one that is not there, one that is inactive, and a body that is too large
/// or missing are refused in the caller's own transaction, with a code and a way out.
#[tokio::test]
async fn sql_request_that_cannot_be_valid_is_refused_in_its_transaction() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    let id = app.partner.partner_id.to_string();
    for name in [id.clone(), id.to_lowercase()] {
        enqueue(&mut orders, &name, &email("kim@example.com")).await.unwrap();
    }
    let resting = partner(&app, "resting").await.partner_id.to_string();
    execute(&app, "update partners set status = 'INACTIVE' where name = 'resting'").await;
    let good = email("kim@example.com");
    let large = format!("jsonb_build_object('body', repeat('x', {}))", 1 << 20);
    let good = format!("'{good}'");
    for (partner, message, state, detail) in [
        ("'nobody'", good.as_str(), "NE007", "E007 partner_unknown"),
        ("'7ZZZZZZZZZZZZ'", &good, "NE007", "E007 partner_unknown"),
        ("'8ZZZZZZZZZZZZ'", &good, "NE007", "E007 partner_unknown"),
        ("''", &good, "NE007", "E007 partner_unknown"),
        ("null", &good, "NE007", "E007 partner_unknown"),
        ("'resting'", &good, "NE008", "E008 partner_inactive"),
        (&format!("'{resting}'"), &good, "NE008", "E008 partner_inactive"),
        ("'test'", "null", "NE001", "E001 body_empty"),
        ("'test'", &large, "NE001", "E001 body_too_large"),
    ] {
        let (code, message, shown, hint) =
            refused(&mut orders, &format!("select notihub.enqueue({partner}, {message})")).await;
        assert_eq!((code.as_str(), shown.as_str(), hint), (state, detail, true), "{partner}: {message}");
    }
    let (_, message, ..) = refused(&mut orders, &format!("select notihub.enqueue(repeat('n', 200), {good})")).await;
    assert!(message.len() < 160, "a caller's words are cut: {message}");
    // What HTTP takes at its limit is taken here.
    let fits = "select notihub.enqueue('test', jsonb_build_object('x', repeat('x', 1048576 - 9)))";
    sqlx::raw_sql(fits).execute(&mut orders).await.unwrap();
    assert_eq!(waiting(&app).await, 3);
    app.work().await;
    assert_eq!((messages(&app).await, app.smtp.records().len(), refusals(&app).await.len()), (2, 2, 1));
    app.done().await;
}

/// The role enqueues and can do nothing else: it sees no table, no sequence, and calls no other function of ours.
#[tokio::test]
async fn sql_role_may_enqueue_and_nothing_else() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    enqueue(&mut orders, "test", &email("kim@example.com")).await.unwrap();
    let ours = "select format('%I.%I', n.nspname, c.relname), c.relkind::text from pg_class c \
                join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'notihub') \
                and c.relkind in ('r', 'p', 'v', 'm', 'S')";
    let ours: Vec<(String, String)> = sqlx::query_as(ours).fetch_all(&app.db().await).await.unwrap();
    assert!(ours.len() > 20, "{ours:?}");
    // The tests' own login has this schema's name, and so first in its search path: nothing else may land here.
    let mut here: Vec<&str> = ours.iter().map(|t| t.0.as_str()).filter(|name| name.starts_with("notihub.")).collect();
    here.sort_unstable();
    assert_eq!(here, ["notihub.refusals", "notihub.requests", "notihub.requests_request_id_seq"]);
    for (name, kind) in ours {
        let deeds = match kind.as_str() {
            "S" => vec![format!("select nextval('{name}')"), format!("select setval('{name}', 1)")],
            // A view that cannot be written is refused with another error before its privileges are checked.
            "v" => vec![format!("select from {name}"), format!("alter view {name} rename to mine")],
            _ => vec![
                format!("select from {name}"),
                format!("delete from {name}"),
                format!("truncate {name}"),
                format!("alter table {name} rename to mine"),
                format!("insert into {name} default values"),
            ],
        };
        for deed in deeds {
            assert_eq!(refused(&mut orders, &deed).await.0, "42501", "{deed}");
        }
    }
    for deed in ["create table notihub.mine (n integer)", "drop function notihub.enqueue", "set role notihub"] {
        assert_eq!(refused(&mut orders, deed).await.0, "42501", "{deed}");
    }
    // Trigger functions are executable by PUBLIC, but no statement can call them.
    let callable = "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
                    where n.nspname in ('public', 'notihub') and p.prorettype <> 'trigger'::regtype \
                    and has_function_privilege(p.oid, 'execute')";
    let callable: Vec<String> = sqlx::query_scalar(callable).fetch_all(&mut orders).await.unwrap();
    assert_eq!(callable, ["notihub.enqueue(text,jsonb)"]);
    // A caller's own names do not lead the function astray.
    let astray = "create temp table partners (partner_id bigint, name text, status text); \
                  insert into partners values (1, 'mine', 'ACTIVE'); set search_path = pg_temp, public";
    sqlx::raw_sql(astray).execute(&mut orders).await.unwrap();
    let shown = enqueue(&mut orders, "mine", &email("kim@example.com")).await.unwrap_err();
    assert_eq!(shown.as_database_error().unwrap().code().unwrap(), "NE007");
    // A login without the role may not even enqueue.
    let stranger = format!("create role stranger_{}; set role stranger_{0}", std::process::id());
    let mut conn = PgConnection::connect(&app.url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(stranger)).execute(&mut conn).await.unwrap();
    assert_eq!(refused(&mut conn, "select notihub.enqueue('test', '{}')").await.0, "42501");
    relay_all(&app).await;
    assert_eq!(messages(&app).await, 1);
    app.done().await;
}

/// Faults of a body are reported as over HTTP: the same code, reason and places for the same JSON, and the good
/// requests between them go through.
#[tokio::test]
async fn sql_request_with_faults_is_kept_with_the_answer_of_http() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    let with = |name: &str, value: Value| {
        let mut body = email("kim@example.com");
        body[name] = value;
        body
    };
    let mut deep = json!(1);
    (0..200).for_each(|_| deep = json!([deep.take()]));
    // The database writes it out, with 400 zeros.
    let far: Value = serde_json::from_str("{\"a\": 1e400}").unwrap();
    let bodies = vec![
        json!({}),
        json!([]),
        json!("text"),
        json!(null),
        json!(12),
        with("type", json!(null)),
        with("type", json!(7)),
        with("type", json!("a b")),
        with("type", json!("x".repeat(65))),
        with("title", json!("x".repeat(251))),
        with("title", json!("line\nline")),
        with("title", json!("turned \u{202e} round")),
        with("body", json!("x".repeat(70_000))),
        with("priority", json!("SOON")),
        with("clientMsgId", json!("")),
        with("clientMsgId", json!({"not": "a text"})),
        with("scheduledAt", json!("2027-03-05T00:00:00Z")),
        with("scheduledAt", json!("2029-03-05T00:00:00Z")),
        with("scheduledAt", json!("tomorrow")),
        with("expiresAt", json!("2026-03-05T00:00:00Z")),
        with("metadata", json!({"a": {"b": 1}})),
        with("metadata", json!({"a": "x".repeat(5000)})),
        with("metadata", far),
        with("channels", json!([])),
        with("channels", json!([{"channel": "PIGEON", "to": "x"}])),
        with("channels", json!([{"channel": "SMS", "to": "010-1234-5678", "body": "x"}])),
        with("channels", json!([{"channel": "EMAIL", "to": "not an address"}])),
        with("channels", json!([{"channel": "SLACK", "to": "elsewhere"}])),
        with(
            "channels",
            json!((0..60).map(|n| json!({"channel": "EMAIL", "to": format!("k{n}@b.kr")})).collect::<Vec<_>>()),
        ),
        with("unknown", json!(1)),
        with("template", json!("order")),
        with("metadata", deep),
        json!({"type": "x".repeat(100), "priority": 1, "what": true, "channels": 7}),
    ];
    let mut expected = Vec::new();
    for body in &bodies {
        let http = app.post("/v1/messages", body.clone()).await;
        assert!((400..500).contains(&http.status), "{}: {body}", http.text);
        enqueue(&mut orders, "test", body).await.unwrap();
        enqueue(&mut orders, "test", &email("kim@example.com")).await.unwrap();
        expected.push(http.body);
    }
    let began = app.hub.metrics.intake_refused.with_label_values(&["E001"]).get();
    relay_all(&app).await;
    assert_eq!(messages(&app).await, i64::try_from(bodies.len()).unwrap(), "the good ones");
    let mut shown = refusals(&app).await;
    shown.reverse();
    assert_eq!(shown.len(), bodies.len());
    for ((shown, expected), body) in shown.iter().zip(&expected).zip(&bodies) {
        let body = body.to_string();
        assert_eq!((&shown["code"], &shown["reason"]), (&expected["code"], &expected["reason"]), "{body:.200}");
        let places = |of: &Value| {
            let mut places: Vec<_> = of["errors"].as_array().into_iter().flatten().cloned().collect();
            places.sort_by_key(|e| e["pointer"].to_string());
            places
        };
        assert_eq!(places(shown), places(expected), "{body:.200}");
        let where_it_was_read = shown["detail"].as_str().unwrap().contains(", column ");
        assert!(shown["detail"] == expected["detail"] || where_it_was_read, "{shown} {expected}");
        assert!(shown.to_string().len() < 3_000, "not a copy of the body: {shown}");
        assert!(shown["enqueuedAt"].is_string() && shown["refusedAt"].is_string() && shown["requestId"].is_string());
    }
    assert!(app.hub.metrics.intake_refused.with_label_values(&["E001"]).get() > began);
    assert!(app.metrics().await.text.contains("notihub_intake_refused_total{code=\"E005\"}"));
    app.done().await;
}

/// The same request again, in SQL or over HTTP, is one message; another one under its key is refused.
#[tokio::test]
async fn sql_request_repeated_over_http_is_one_message() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    let body = |key: &str, text: &str| {
        let mut body = slack_post(text);
        body["clientMsgId"] = json!(key);
        body
    };
    app.post("/v1/messages", body("over-http", "same")).await.expect(202);
    for (key, text) in
        [("over-http", "same"), ("over-http", "other"), ("in-sql", "same"), ("in-sql", "same"), ("in-sql", "other")]
    {
        enqueue(&mut orders, "test", &body(key, text)).await.unwrap();
    }
    relay_all(&app).await;
    enqueue(&mut orders, "test", &body("in-sql", "same")).await.unwrap();
    relay_all(&app).await;
    app.post("/v1/messages", body("in-sql", "same")).await.expect(200);
    assert_eq!((messages(&app).await, waiting(&app).await), (2, 0));
    let shown = refusals(&app).await;
    let shown: Vec<_> =
        shown.iter().map(|t| (t["clientMsgId"].as_str(), t["code"].as_str(), t["reason"].as_str())).collect();
    let reused = |key| (Some(key), Some("E004"), Some("idempotency_key_reused"));
    assert_eq!(shown, [reused("in-sql"), reused("over-http")], "newest first");
    app.work().await;
    assert_eq!(app.slack.records().len(), 2);
    app.done().await;
}

/// A request that was right when it was enqueued is right however long it waited: a time that came meanwhile means now,
/// one that was over means expired, and a partner made inactive since has its message delivered.
#[tokio::test]
async fn sql_request_is_judged_by_its_time_of_enqueueing() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    let mut due = slack_post("due");
    due["scheduledAt"] = json!("2027-03-05T00:20:00Z");
    let mut over = slack_post("over");
    over["expiresAt"] = json!("2027-03-05T00:20:00Z");
    for body in [due, over] {
        enqueue(&mut orders, "test", &body).await.unwrap();
    }
    // They came ten minutes before those times, which are ten minutes past.
    execute(&app, "update notihub.requests set enqueued_at = enqueued_at - interval '20 min'").await;
    execute(&app, "update partners set status = 'INACTIVE'").await;

    let findings = fsck::fsck(&app.hub.store, app.hub.clock.now(), |_| ()).await.unwrap();
    assert!(findings.len() == 2 && findings.iter().all(|f| f.invariant == "relayed"), "{findings:#?}");
    relay::measure(&app.hub).await.unwrap();
    let shown = app.metrics().await.text;
    assert!(shown.contains("\nnotihub_sql_intake_waiting 2\n"), "{shown}");
    let oldest = shown.lines().find_map(|l| l.strip_prefix("notihub_sql_intake_oldest_seconds ")).unwrap();
    assert!((1200..1300).contains(&oldest.parse::<i64>().unwrap()), "{oldest}");

    app.settle_all().await;
    assert_eq!(app.slack.records().iter().map(|p| p.text.clone().unwrap()).collect::<Vec<_>>(), ["due"]);
    assert_eq!(app.count("select count(*) from deliveries where status = 'EXPIRED'").await, 1);
    execute(&app, "update partners set status = 'ACTIVE'").await;
    assert_eq!(refusals(&app).await, Vec::<Value>::new());
    relay::measure(&app.hub).await.unwrap();
    let shown = app.metrics().await.text;
    assert!(
        shown.contains("\nnotihub_sql_intake_waiting 0\n") && shown.contains("\nnotihub_sql_intake_oldest_seconds 0\n")
    );
    app.done().await;
}

/// Several relays at once write each request once, and each partner's in their order; one partner's backlog does not
/// keep another's waiting.
#[tokio::test]
async fn sql_relays_at_the_same_moment_keep_each_partners_order() {
    let app = App::new().await;
    partner(&app, "few").await;
    let mut orders = service(&app).await;
    let many = |partner: &str, n: usize| {
        format!(
            "select count(notihub.enqueue('{partner}', jsonb_build_object('type', 'N' || n, 'body', 'x', 'channels', \
             jsonb_build_array(jsonb_build_object('channel', 'SLACK', 'to', 'ops'))))) from generate_series(1, {n}) n"
        )
    };
    for (partner, n) in [("test", 1200), ("few", 30)] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(many(partner, n))).execute(&mut orders).await.unwrap();
    }
    relay::relay(&app.hub, &mut relay::Relay::default()).await.unwrap();
    let few = "select count(*) from messages m join partners p using (partner_id) where p.name = 'few'";
    assert_eq!(app.count(few).await, 30, "the first round takes requests of each partner");
    assert!(waiting(&app).await > 0);
    while waiting(&app).await > 0 {
        let (mut a, mut b, mut c) = <(relay::Relay, relay::Relay, relay::Relay)>::default();
        let rounds = tokio::join!(
            relay::relay(&app.hub, &mut a),
            relay::relay(&app.hub, &mut b),
            relay::relay(&app.hub, &mut c),
        );
        assert!(rounds.0.is_ok() && rounds.1.is_ok() && rounds.2.is_ok(), "{rounds:?}");
    }
    let in_order = "select array_agg(kind order by message_id) from messages m join partners p using (partner_id) \
                    where p.name = $1";
    for (partner, n) in [("test", 1200), ("few", 30)] {
        let kinds: Vec<String> = sqlx::query_scalar(in_order).bind(partner).fetch_one(&app.db().await).await.unwrap();
        assert!(kinds == (1..=n).map(|n| format!("N{n}")).collect::<Vec<_>>(), "{partner}: {kinds:?}");
    }
    app.done().await;
}

/// While one relay has a partner's requests, another takes none of them, and what that one wrote is not written again.
#[tokio::test]
async fn sql_requests_of_a_partner_have_one_relay_at_a_time() {
    let app = App::new().await;
    let other = partner(&app, "other").await.partner_id;
    let mut orders = service(&app).await;
    for partner in ["test", "test", "other"] {
        enqueue(&mut orders, partner, &slack_post("x")).await.unwrap();
    }
    let none = notihub::id::Tsid(0);
    store::sql_intake::ensure_turn_locks(app.hub.store.intake()).await.unwrap();
    let mut first = app.hub.store.begin_intake().await.unwrap();
    let taken = store::sql_intake::lock_requests(&mut *first, none, &[other], 500).await.unwrap();
    assert_eq!(taken.len(), 2, "all but those of the partner passed over");
    enqueue(&mut orders, "test", &slack_post("later")).await.unwrap();
    relay_all(&app).await;
    assert_eq!((messages(&app).await, waiting(&app).await), (1, 3), "only the other's");
    first.rollback().await.unwrap();
    relay_all(&app).await;
    assert_eq!((messages(&app).await, waiting(&app).await), (4, 0));
    app.done().await;
}

/// A request that only the database refuses is kept with an error, and those beside it go on; when none can be written
/// the fault is not theirs, and they wait until it is repaired.
#[tokio::test]
async fn sql_request_refused_by_the_database_holds_up_no_other() {
    let app = App::new().await;
    let mut orders = service(&app).await;
    let kind = |kind: &str| {
        let mut body = slack_post("x");
        body["type"] = json!(kind);
        body
    };
    execute(&app, "alter table messages add constraint ck_test check (kind not like 'BAD%')").await;
    for n in 0..3 {
        enqueue(&mut orders, "test", &kind(&format!("BAD{n}"))).await.unwrap();
    }
    let mut relay = relay::Relay::default();
    let mut failed = 0;
    for _ in 0..4 {
        failed += u32::from(relay::relay(&app.hub, &mut relay).await.is_err());
    }
    assert_eq!(failed, 2, "nothing can be written, and every other round is for partners further on");
    assert_eq!((messages(&app).await, waiting(&app).await), (0, 3));
    app.post("/v1/messages", kind("GOOD")).await.expect(202);
    app.work().await;
    assert_eq!((app.slack.records().len(), waiting(&app).await), (1, 3), "work goes on beside it");

    for n in 0..3 {
        enqueue(&mut orders, "test", &kind(&format!("GOOD{n}"))).await.unwrap();
    }
    relay_all(&app).await;
    assert_eq!((messages(&app).await, waiting(&app).await), (4, 0));
    let shown = refusals(&app).await;
    let shown: Vec<_> = shown.iter().map(|t| (t["code"].as_str(), t["reason"].as_str())).collect();
    assert_eq!(shown, vec![(Some("E100"), Some("system_error")); 3]);
    app.work().await;
    assert_eq!(app.slack.records().len(), 4);
    app.done().await;
}

/// Refused requests are listed page by page, by the partner whose they are, and forgotten when retention is over, or
/// the partner's own.
#[tokio::test]
async fn sql_requests_refused_are_listed_and_removed() {
    let app = App::new().await;
    partner(&app, "careful").await;
    execute(&app, "update partners set retention_days = 3 where name = 'careful'").await;
    let mut orders = service(&app).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(enqueue(&mut orders, "test", &json!({"clientMsgId": format!("k{n}")})).await.unwrap().to_string());
    }
    enqueue(&mut orders, "careful", &json!({})).await.unwrap();
    relay_all(&app).await;
    ids.reverse();
    let (mut found, mut next) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("/v1/intake/refused?limit=2{next}")).await.expect(200).body;
        found.extend(page["items"].as_array().unwrap().iter().map(|i| i["requestId"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        next = format!("&cursor={cursor}");
    }
    assert_eq!(found, ids, "another partner's is not among them");
    let count = async |query: &str| {
        app.get(&format!("/v1/intake/refused?{query}")).await.expect(200).body["items"].as_array().unwrap().len()
    };
    assert_eq!(count("since=2027-03-05T00:00:00Z&until=2027-03-05T01:00:00Z").await, 5);
    assert_eq!(count("since=2027-03-05T01:00:00Z").await, 0);
    assert_eq!(count("until=2027-03-05T00:00:00Z").await, 0);
    app.get("/v1/intake/refused?status=X").await.refused(400, "query_unknown");
    app.get("/v1/intake/refused?cursor=AAAA").await.refused(400, "cursor_invalid");

    let kept = "select count(*) from notihub.refusals";
    retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count(kept).await, 6);
    app.advance(4 * 86_400);
    retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count(kept).await, 5, "the careful partner's is gone");
    app.advance(87 * 86_400);
    retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count(kept).await, 0);
    app.done().await;
}
