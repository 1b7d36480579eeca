//! The audit log: what leaves an entry and what leaves none, its months, and that nothing in it can be rewritten.

use std::collections::BTreeMap;

use notihub::flow::retain;
use notihub::http::staff_view::AUDITED_ROUTES;
use notihub::model::access::role::StaffRole;
use notihub::store;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::laws::{read, root};
use crate::support::app::{App, email, start_time};
use crate::support::database::{as_hub, as_superuser, fresh_database, migrate, store as open};
use crate::support::sql::run_sql;

/// The first column of each row.
async fn column<T>(conn: &mut PgConnection, sql: &str) -> Vec<T>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The SQLSTATE and the words with which a statement is refused.
async fn refused(conn: &mut PgConnection, sql: &str) -> (String, String) {
    let e = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.expect_err(sql);
    let e = e.as_database_error().expect("the database's answer");
    (e.code().unwrap_or_default().into_owned(), e.message().to_owned())
}

/// The names of the log's partitions.
async fn partitions(conn: &mut PgConnection) -> Vec<String> {
    column(
        conn,
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = 'audit'::regclass order by 1",
    )
    .await
}

/// The first id of a moment.
fn first_id(at: &str) -> String {
    format!("((extract(epoch from {at})::bigint * 1000 - 1577836800000) << 22)")
}

/// An entry of this moment, as the hub's role may add any.
fn entry(at: &str) -> String {
    format!(
        "insert into audit (audit_id, at, actor, role, action) \
         select {} + 1 + nextval('node_seq'), t, 'test', 'ADMIN', 'test' from (select timestamptz '{at}' as t) t",
        first_id("t")
    )
}

const LOOKS: &str = "select count(*) from audit where action = 'look'";

/// GET routes that staff may ask and that reveal nothing of what partners' messages say and to whom they go.
const NOT_REVEALING: [&str; 31] = [
    "/about",
    // Refused to staff.
    "/api/channels",
    "/api/channels/{channelId}",
    "/api/channels/{channelId}/members",
    "/api/channels/{channelId}/messages",
    "/api/v1/chatrooms",
    "/api/v1/chatrooms/{roomId}",
    "/api/v1/chatrooms/{roomId}/events",
    "/api/v1/chatrooms/{roomId}/participants",
    "/api/v1/messages/{id}",
    "/api/v1/messages/{id}/reads",
    "/api/v1/sse/read-count/{roomId}/{messageId}",
    "/api/v1/sse/unread/{userId}",
    "/api/v1/sse/updates/{userId}",
    "/api/v1/users/blocks",
    "/api/v1/users/me",
    "/api/v1/users/me/devices",
    "/api/v1/users/{userId}",
    "/v1/inbox",
    "/v1/inbox/counts",
    "/v1/inbox/stream",
    "/v1/users/{externalId}",
    "/metrics",
    "/v1/keys",
    "/v1/ledger",
    "/v1/partners",
    "/v1/partners/{id}",
    "/v1/providers",
    "/v1/redrives",
    "/v1/redrives/{id}",
    "/v1/stats/daily",
];

/// F6: each GET route of the document is on one of two lists. A look of staff at a route of the revealing list leaves
/// an entry, and a look of a partner leaves none; at a route of the other list no look leaves an entry.
#[tokio::test]
async fn audit_look_that_reveals_leaves_an_entry() {
    let app = App::new().await;
    let id = app.post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    // The stream of its events ends with it.
    app.work().await;
    let document = app.get("/openapi.json").await.expect(200).body;
    let admin = app.staff(StaffRole::Admin).await;
    let paths: BTreeMap<String, Value> = serde_json::from_value(document["paths"].clone()).unwrap();
    let looked_at: Vec<&String> =
        paths.iter().filter(|(_, of)| of["get"]["security"].is_array()).map(|(path, _)| path).collect();
    assert!(looked_at.len() > 20, "the document has gone blind");
    for path in &looked_at {
        let reveals = AUDITED_ROUTES.contains(&path.as_str());
        assert_ne!(reveals, NOT_REVEALING.contains(&path.as_str()), "{path} is on both lists or on none");
        let before = app.count(LOOKS).await;
        let asked = path.replace("{id}", &id);
        app.ask(&admin, "GET", &asked, None).await;
        assert_eq!(app.count(LOOKS).await - before, i64::from(reveals), "{path}");
        app.get(&asked).await;
        assert_eq!(app.count(LOOKS).await - before, i64::from(reveals), "{path}: a partner looks at its own");
    }
    for path in AUDITED_ROUTES {
        assert!(looked_at.iter().any(|known| *known == path), "{path} is no route");
    }
    app.done().await;
}

/// F6: a hundred polls in a minute are one entry; another minute, object or actor has one of its own; lanes, providers
/// and statistics leave none; and an address in place of an id is not written into a log that cannot be erased.
#[tokio::test]
async fn audit_looks_in_a_minute_are_one_entry() {
    let app = App::new().await;
    let id = app.post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    let (one, other) = (app.staff(StaffRole::Operator).await, app.staff(StaffRole::Operator).await);
    let ask = async |token: &str, path: &str| app.ask(token, "GET", path, None).await;
    for n in 0..100 {
        ask(&one, &format!("/v1/messages?limit={}", 1 + n)).await.expect(200);
        app.hub.clock.advance(chrono::TimeDelta::milliseconds(500));
    }
    assert_eq!(app.count(LOOKS).await, 1);
    for (token, path, looks) in [
        (&one, format!("/v1/messages/{id}"), 2),
        (&one, format!("/v1/messages/{id}"), 2),
        (&one, format!("/v1/deliveries/{id}-1"), 3),
        (&other, "/v1/messages".to_owned(), 4),
        (&one, "/v1/providers".to_owned(), 4),
        (&one, "/v1/stats/daily?partnerId=".to_owned() + &app.partner.partner_id.to_string(), 4),
        (&one, "/metrics".to_owned(), 4),
        (&one, "/about".to_owned(), 4),
    ] {
        ask(token, &path).await.expect(200);
        assert_eq!(app.count(LOOKS).await, looks, "{path}");
    }
    app.advance(60);
    ask(&one, "/v1/messages").await.expect(200);
    assert_eq!(app.count(LOOKS).await, 5, "another minute");
    for _ in 0..2 {
        ask(&one, "/v1/messages/kim@example.com").await.expect(404);
    }
    let mut db = PgConnection::connect(&app.url).await.unwrap();
    let objects: Vec<String> =
        column(&mut db, "select object from audit where action = 'look' order by audit_id").await;
    let wanted = [
        "/v1/messages",
        &format!("/v1/messages/{id}"),
        &format!("/v1/deliveries/{id}-1"),
        "/v1/messages",
        "/v1/messages",
    ];
    assert_eq!(objects[..5], wanted);
    assert_eq!(objects[5..], ["/v1/messages/{id}"]);
    app.done().await;
}

/// F6: months that are older than --audit-retention-days go, younger ones stay. The hub's role can have none of the
/// last 90 days dropped, and nothing else; and it can change nothing in any partition, nor can the owner by accident.
#[tokio::test]
async fn audit_months_go_by_retention_and_young_ones_stay() {
    let app = App::new().await;
    app.staff(StaffRole::Admin).await;
    let mut hub = PgConnection::connect(&as_hub(&app.url)).await.unwrap();
    for month in ["2024-12-01", "2025-01-01", "2025-04-01"] {
        run_sql(&mut hub, &format!("select make_audit_month('{month}')")).await;
        run_sql(&mut hub, &entry(month)).await;
    }
    // Of the present by the database's clock, which is not the test's.
    run_sql(&mut hub, &entry("now")).await;
    retain::retain(&app.hub).await.unwrap();
    let there = partitions(&mut hub).await;
    let old = ["audit_202412", "audit_202501"];
    assert!(old.iter().all(|gone| !there.iter().any(|name| name == gone)), "{there:?}");
    assert!(there.iter().any(|name| name == "audit_202504"), "{there:?}");
    let ahead = ["audit_202703", "audit_202706", "audit_default"];
    assert!(ahead.iter().all(|made| there.iter().any(|name| name == made)), "{there:?}");

    let entries: i64 = column(&mut hub, "select count(*) from audit").await[0];
    for sql in [
        "select drop_audit_months(current_date - 89)",
        "select drop_audit_months(current_date + 400)",
        "select drop_audit_months(null)",
        "select drop_audit_months('infinity')",
        "select make_audit_month('2025-05-02')",
        "select make_audit_month(null)",
        "select make_audit_month('1999-01-01')",
        "select make_audit_month('infinity')",
    ] {
        let (state, _) = refused(&mut hub, sql).await;
        assert!(["P0001", "22008"].contains(&state.as_str()), "{sql}: {state}");
    }
    run_sql(&mut hub, "select drop_audit_months(current_date - 90)").await;
    assert_eq!(column::<i64>(&mut hub, "select count(*) from audit").await[0], entries - 1, "that of 2025-04");
    assert!(column::<i64>(&mut hub, "select count(*) from audit where action = 'test'").await[0] == 1);

    let mut owner = PgConnection::connect(&as_superuser(&app.url)).await.unwrap();
    for table in partitions(&mut hub).await.iter().map(String::as_str).chain(["audit"]) {
        let update = format!("update {table} set actor = 'nobody'");
        for sql in [update.as_str(), &format!("delete from {table}"), &format!("truncate {table}")] {
            assert_eq!(refused(&mut hub, sql).await.0, "42501", "{sql}");
            assert!(refused(&mut owner, sql).await.1.contains("only ever added to"), "{sql}");
        }
        assert_eq!(refused(&mut hub, &format!("drop table {table}")).await.0, "42501");
        if table != "audit" {
            let detach = format!("alter table audit detach partition {table}");
            assert_eq!(refused(&mut hub, &detach).await.0, "42501");
        }
    }
    assert_eq!(store::role::missing_grants(app.hub.store.api()).await.unwrap(), Vec::<String>::new());
    assert_eq!(store::role::check(app.hub.store.api()).await.unwrap().fault(), None);
    app.done().await;
}

/// F6: an entry of a time for which no month was made is not refused. It goes into its month when that is made, with
/// its neighbours, and the others stay where they are.
#[tokio::test]
async fn audit_entry_without_its_month_is_kept() {
    let app = App::new().await;
    retain::partitions(&app.hub).await.unwrap();
    let operator = app.staff(StaffRole::Operator).await;
    let mut hub = PgConnection::connect(&as_hub(&app.url)).await.unwrap();
    for at in ["2031-05-03", "2031-05-04", "2031-07-01", "2088-12-31"] {
        run_sql(&mut hub, &entry(at)).await;
    }
    run_sql(&mut hub, "insert into audit (audit_id, at, actor, role, action) values (-1, now(), 'a', 'r', 'b')").await;
    let strays = "select count(*) from audit_default";
    assert_eq!(column::<i64>(&mut hub, strays).await[0], 5);
    let (before, count) = (partitions(&mut hub).await, "select count(*) from audit");
    let entries: i64 = column(&mut hub, count).await[0];
    run_sql(&mut hub, "select make_audit_month('2031-05-01')").await;
    assert_eq!(column::<i64>(&mut hub, strays).await[0], 3);
    assert_eq!(column::<i64>(&mut hub, "select count(*) from audit_203105").await[0], 2);
    assert!(store::partition::has_audit_strays(app.hub.store.api()).await.unwrap());
    let made = retain::partitions(&app.hub).await.unwrap().made;
    assert_eq!(made, ["audit_203107", "audit_208812"]);
    assert_eq!(partitions(&mut hub).await.len(), before.len() + 3);
    assert_eq!(column::<i64>(&mut hub, count).await[0], entries);
    assert_eq!(column::<i64>(&mut hub, strays).await[0], 1, "of no time at all");
    app.ask(&operator, "GET", "/v1/messages", None).await.expect(200);
    assert_eq!(app.count(LOOKS).await, 1);
    app.done().await;
}

/// A database as it was before migration 0012.
async fn before_months() -> String {
    let url = fresh_database().await;
    let mut conn = PgConnection::connect(&as_superuser(&url)).await.unwrap();
    let partners = read(&root().join("migrations/0002_partners.sql"));
    let (_, audit) = partners.split_once("create table audit (").unwrap();
    let (table, _) = audit.split_once("create function").unwrap();
    run_sql(
        &mut conn,
        &format!(
            "drop table audit; drop function make_audit_month, drop_audit_months, audit_partition, audit_months, \
             audit_month_of, audit_first_id; delete from _sqlx_migrations where version = 12; \
             set role notihub_owner; create table audit ({table} \
             create trigger audit_append_only before update or delete or truncate on audit \
             for each statement execute function audit_is_only_added_to(); \
             grant select, insert on audit to notihub_app"
        ),
    )
    .await;
    url
}

/// F6: a database with entries migrates with all of them, those of a clock that was ahead included; they are there in
/// one partition, which nothing can change and which goes when it is old as a whole. One without entries has months
/// alone.
#[tokio::test]
async fn audit_log_migrates_with_all_entries() {
    for last in [None, Some("now"), Some("2031-02-03")] {
        let url = before_months().await;
        let mut hub = PgConnection::connect(&as_hub(&url)).await.unwrap();
        for (n, at) in ["2024-03-04", "2026-01-02"].into_iter().chain(last).enumerate().filter(|_| last.is_some()) {
            let sql = format!(
                "insert into audit (audit_id, at, actor, role, action, object, before, after) select \
                 (extract(epoch from t)::bigint * 1000 - 1577836800000) << 22, t, 'kim', 'ADMIN', 'test', '{n}', \
                     '{{}}', \
                 '{{\"n\": {n}}}' from (select timestamptz '{at}' as t) t"
            );
            run_sql(&mut hub, &sql).await;
        }
        let rows = "select a::text from audit a order by audit_id";
        let before: Vec<String> = column(&mut hub, rows).await;
        migrate(&url).await;
        assert_eq!(column::<String>(&mut hub, rows).await, before);
        assert_eq!(before.len(), if last.is_some() { 3 } else { 0 });
        let there = partitions(&mut hub).await;
        assert_eq!(there.iter().any(|name| name == "audit_before_months"), last.is_some(), "{there:?}");
        if last.is_some() {
            let mut owner = PgConnection::connect(&as_superuser(&url)).await.unwrap();
            let sql = "delete from audit_before_months";
            assert_eq!(refused(&mut hub, sql).await.0, "42501");
            assert!(refused(&mut owner, sql).await.1.contains("only ever added to"));
            assert_eq!(
                column::<String>(&mut hub, "select drop_audit_months(current_date - 90)::text").await,
                ["{}"],
                "it ends with this month"
            );
        }
        // The hub goes on writing, now and in the months to come.
        for at in ["now", "2027-03-05", "2031-02-04", "2032-01-01"] {
            run_sql(&mut hub, &entry(at)).await;
        }
        migrate(&url).await;
        let store = open(&url);
        store::partition::maintain(&store, start_time(), chrono::DateTime::UNIX_EPOCH).await.unwrap();
        assert!(partitions(&mut hub).await.iter().any(|name| name == "audit_203201"));
        assert_eq!(column::<String>(&mut hub, rows).await.len(), before.len() + 4);
        assert_eq!(column::<i64>(&mut hub, "select count(*) from audit_default").await, [0]);
        store.close().await;
    }
}

const MODES: [&str; 2] = ["force_custom_plan", "force_generic_plan"];

/// F6: a page of the log is read from an index, whatever is asked for and however many months there are.
#[tokio::test]
async fn audit_page_reads_its_rows_alone() {
    let app = App::new().await;
    let mut hub = PgConnection::connect(&as_hub(&app.url)).await.unwrap();
    for month in 1..=12 {
        run_sql(&mut hub, &format!("select make_audit_month('2025-{month:02}-01')")).await;
    }
    let base = first_id("timestamptz '2025-01-01 00:00Z'");
    let rows = format!(
        "insert into audit (audit_id, at, actor, role, action, object, partner_id) \
         select {base} + (n::bigint * 1000000 << 22), timestamptz '2025-01-01 00:00Z' + n * interval '1000 s', \
           case when n % 5000 = 7 then 'rare' else 'staff' end, 'ADMIN', \
           case when n % 5000 = 9 then 'key.revoke' else 'look' end, '/v1/messages', \
           case when n % 5000 = 11 then 1 else n % 3 + 2 end \
         from generate_series(1, 30000) n"
    );
    run_sql(&mut hub, &rows).await;
    let mut owner = PgConnection::connect(&as_superuser(&app.url)).await.unwrap();
    run_sql(&mut owner, "analyze audit").await;
    let text = read(&root().join("sql/audit/list.sql"));
    let all = "9223372036854775807, 0";
    for (args, rows) in [
        (format!("{all}, null, null, null, 11"), 11),
        (format!("{}, 0, null, null, null, 11", first_id("timestamptz '2025-06-15'")), 11),
        (format!("{all}, 1, null, null, 11"), 6),
        (format!("{all}, null, 'rare', null, 11"), 6),
        (format!("{all}, null, null, 'key.revoke', 11"), 6),
        (format!("{all}, 3, null, 'look', 11"), 11),
        (format!("{all}, 1, 'staff', 'look', 11"), 6),
    ] {
        run_sql(&mut hub, &format!("prepare explained as {text}")).await;
        for mode in MODES {
            run_sql(&mut hub, &format!("set plan_cache_mode = {mode}")).await;
            let explain = format!("explain (analyze, timing off, format json) execute explained({args})");
            let plan: Value = column::<Value>(&mut hub, &explain).await.remove(0);
            assert_eq!(plan[0]["Plan"]["Actual Rows"].as_f64().unwrap() as i64, rows, "{mode} {args}: {plan:#}");
            assert!(read_rows(&plan[0]["Plan"]) < 100, "{mode} {args}: {plan:#}");
        }
        run_sql(&mut hub, "deallocate explained").await;
    }
    // And so is the question whether a look is in the log already.
    let look = read(&root().join("sql/audit/record_view.sql"));
    run_sql(&mut hub, &format!("prepare looking as {look}")).await;
    let at = first_id("timestamptz '2025-12-15'");
    let args = format!("{at}, now(), 'staff', 'OPERATOR', '/v1/messages', null, null, {at} - (60000::bigint << 22)");
    for mode in MODES {
        run_sql(&mut hub, &format!("set plan_cache_mode = {mode}; begin")).await;
        let explain = format!("explain (analyze, timing off, format json) execute looking({args})");
        let plan: Value = column::<Value>(&mut hub, &explain).await.remove(0);
        run_sql(&mut hub, "rollback").await;
        assert!(read_rows(&plan[0]["Plan"]) < 10, "{plan:#}");
    }
    // Over HTTP page by page, over months.
    let admin = app.staff(StaffRole::Admin).await;
    let (mut found, mut cursor) = (0, String::new());
    loop {
        let path = format!("/v1/audit?actor=rare&limit=2{cursor}");
        let page = app.ask(&admin, "GET", &path, None).await.expect(200).body;
        found += page["items"].as_array().unwrap().len();
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, 6);
    assert_eq!(
        app.ask(&admin, "GET", "/v1/audit?action=key.revoke", None).await.expect(200).body["items"][5]["object"],
        json!("/v1/messages")
    );
    app.done().await;
}

/// Rows that the plan's scans read, those thrown away included.
fn read_rows(node: &Value) -> i64 {
    let below = node["Plans"].as_array().into_iter().flatten().map(read_rows).sum::<i64>();
    let own = |name: &str| (node[name].as_f64().unwrap_or(0.0) * node["Actual Loops"].as_f64().unwrap_or(0.0)) as i64;
    let is_scan = node["Node Type"].as_str().is_some_and(|kind| kind.ends_with("Scan"));
    below + if is_scan { own("Actual Rows") + own("Rows Removed by Filter") } else { 0 }
}
