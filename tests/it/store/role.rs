//! Roles of the database: the hub owns nothing, a login enqueues for its partners alone, and neither stops the hub by a
//! lock.

use notihub::flow::{self, relay, retain};
use notihub::model::access::principal::Actor;
use notihub::store;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::support::app::{App, email, named, slack_post};
use crate::support::database::{as_superuser, database_url, fresh_database, server_url};
use crate::support::process::{Folder, fsck};
use crate::support::role::{doctor, enqueue, fresh_name, graded, login, program};
use crate::support::sql::run_sql;

async fn one<T>(conn: &mut PgConnection, sql: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The SQLSTATE, message and hint with which a statement is refused.
async fn refused(conn: &mut PgConnection, sql: &str) -> (String, String, String) {
    let e = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.expect_err(sql);
    let e = e.as_database_error().expect("the database's answer");
    let e = e.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    (e.code().to_owned(), e.message().to_owned(), e.hint().unwrap_or_default().to_owned())
}

/// A database whose schema one login owns that is no superuser and may make no roles, as installations of one login
/// were before migration 0011.
async fn old_installation(may_make_roles: bool) -> (String, String) {
    let (owner, name) = (fresh_name("owner"), fresh_name("old"));
    let mut server = PgConnection::connect(&server_url()).await.unwrap();
    let roles = if may_make_roles { "createrole" } else { "" };
    run_sql(&mut server, &format!("create role {owner} login {roles} password 'owner'")).await;
    run_sql(&mut server, &format!("create database {name} owner {owner}")).await;
    let base = database_url(&name);
    let url = format!("postgres://{owner}:owner@{}", base.split_once('@').unwrap().1);
    let store =
        notihub::store::Store::new(&url, store::PoolSizes { api: 1, intake: 1, engine: 1, webhooks: 1 }).unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    let mut conn = PgConnection::connect(&as_superuser(&base)).await.unwrap();
    let undo = "drop function make_week, drop_week; drop table hub_locks, intake_grants; \
                delete from _sqlx_migrations where version = 11; drop owned by notihub_app";
    run_sql(&mut conn, undo).await;
    (url, owner)
}

/// Faults C3: the hub's role is no superuser, owns nothing, and can do nothing to the audit log but read and add.
#[tokio::test]
async fn role_of_the_hub_owns_nothing_and_only_adds_to_the_audit_log() {
    let app = App::new().await;
    app.staff(notihub::model::access::role::StaffRole::Admin).await;
    let standing = store::role::check(app.hub.store.api()).await.unwrap();
    assert_eq!((standing.name.as_str(), standing.fault()), ("notihub_app", None));
    assert_eq!(store::role::missing_grants(app.hub.store.api()).await.unwrap(), Vec::<String>::new());
    let mut hub = PgConnection::connect(&crate::support::database::as_hub(&app.url)).await.unwrap();
    let owned =
        "select count(*) from pg_class where relowner = (select oid from pg_roles where rolname = current_user)";
    assert_eq!(one::<i64>(&mut hub, owned).await, 0);
    assert!(one::<i64>(&mut hub, "select count(*) from audit").await > 0, "it reads the log");
    for sql in [
        "update audit set actor = 'nobody'",
        "delete from audit",
        "truncate audit",
        "drop table audit",
        "alter table audit disable trigger all",
        "drop trigger audit_append_only on audit",
        "create or replace function audit_is_only_added_to() returns trigger language plpgsql as 'begin return new; \
            end'",
        "truncate messages",
        "drop table messages",
        "create table mine (n integer)",
        "create function mine() returns integer language sql as 'select 1'",
        "delete from _sqlx_migrations",
        "set role notihub_owner",
        "set session authorization notihub",
        "create role mine superuser",
        "select notihub.enqueue('test', '{}')",
        "set session_replication_role = replica",
    ] {
        assert_eq!(refused(&mut hub, sql).await.0, "42501", "{sql}");
    }
    let definers = "select coalesce(array_agg(proname::text), '{}') from pg_proc p join pg_roles r on r.oid = \
        p.proowner \
                    where prosecdef and (r.rolsuper or not coalesce(proconfig::text like '%search_path=pg_catalog, \
                        pg_temp%', false))";
    let mut superuser = PgConnection::connect(&app.url).await.unwrap();
    assert_eq!(one::<Vec<String>>(&mut superuser, definers).await, Vec::<String>::new());
    app.done().await;
}

/// Faults C3: partitions are made and dropped for the hub's role by functions that make and drop only those.
#[tokio::test]
async fn role_of_the_hub_makes_partitions_of_a_week_alone() {
    let app = App::new().await;
    app.post("/v1/messages", slack_post("open")).await.expect(202);
    let mut hub = PgConnection::connect(&crate::support::database::as_hub(&app.url)).await.unwrap();
    for (sql, state) in [
        ("select make_week('2027-03-02', 0, 1)", "P0001"),
        ("select make_week(null, 0, 1)", "P0001"),
        ("select drop_week('2027-03-01')", "P0001"),
    ] {
        assert_eq!(refused(&mut hub, sql).await.0, state, "{sql}");
    }
    assert_eq!(one::<Vec<String>>(&mut hub, "select drop_week('1999-01-04')").await, Vec::<String>::new());
    let (_, mut service) = login(&app.url, "in role notihub_enqueue").await;
    assert_eq!(refused(&mut service, "select drop_week('2027-03-01')").await.0, "42501");
    app.work().await;
    app.advance(200 * 86_400);
    let round = retain::partitions(&app.hub).await.unwrap();
    assert!(round.made.len() > 4 && round.dropped.len() >= 4, "{round:?}");
    app.done().await;
}

/// Faults C2: advisory locks by the numbers that earlier versions used, and by sqlx's own, held by a login that may
/// only enqueue, stop nothing: no relay, no partition, no signing key, no erasure of content, no migration.
#[tokio::test]
async fn role_of_a_login_stops_nothing_by_advisory_locks() {
    let app = App::new().await;
    let (name, mut service) = login(&app.url, "in role notihub_enqueue").await;
    grant(&app, "test", &name).await;
    let partner = app.partner.partner_id.0;
    run_sql(
        &mut service,
        &format!(
            "select pg_advisory_lock(x'6e6f7469'::bigint), pg_advisory_lock(x'6e6f7469'::bigint + 1), \
         pg_advisory_lock(x'7369676e'::bigint), pg_advisory_lock(1852797033, hashint8({partner})), \
         pg_advisory_lock(x'72657461'::int, hashint8({partner}))"
        ),
    )
    .await;
    let mut held = PgConnection::connect(&app.url).await.unwrap();
    let database: String = one(&mut held, "select current_database()::text").await;
    let number = 0x3d32_ad9e * i64::from(crc32(database.as_bytes()));
    run_sql(&mut service, &format!("select pg_advisory_lock({number})")).await;

    run_sql(&mut service, &enqueue("test", &email("kim@example.com"))).await;
    let mut relayed = relay::Relay::default();
    while relay::relay(&app.hub, &mut relayed).await.unwrap() {}
    assert_eq!(app.count("select count(*) from messages where client_msg_id is null").await, 1);
    app.work().await;
    assert_eq!(app.smtp.records().len(), 1);

    let change = flow::partner::PartnerChange { retention_days: Some(Some(1)), ..Default::default() };
    let actor = Actor::local_admin("test".into());
    flow::partner::update(&app.hub, actor.admin_permit().unwrap(), app.partner.partner_id, change).await.unwrap();
    app.advance(3 * 86_400);
    retain::retain(&app.hub).await.unwrap();
    assert!(app.count("select erased_below from partners").await > 0, "content was erased");
    app.advance(200 * 86_400);
    let round = retain::partitions(&app.hub).await.unwrap();
    assert!(!round.made.is_empty() && !round.dropped.is_empty(), "{round:?}");
    flow::sign_in::rotate_signing_key(&app.hub, actor.admin_permit().unwrap(), false).await.unwrap();

    run_sql(
        &mut held,
        "drop function make_week, drop_week; drop table hub_locks, intake_grants; \
        delete from _sqlx_migrations where version = 11",
    )
    .await;
    crate::support::database::migrate(&app.url).await;
    assert!(retain::partitions(&app.hub).await.is_ok());
    app.done().await;
}

/// As PNG and Ethernet have it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

async fn grant(app: &App, partner: &str, role: &str) {
    let actor = Actor::local_admin("test".into());
    let partner = store::partner::find_by_name(app.hub.store.api(), partner).await.unwrap().unwrap();
    flow::partner::grant_intake(&app.hub, actor.admin_permit().unwrap(), &partner, role).await.unwrap();
}

/// Faults C2: a transaction that a login holds open after it enqueued holds up nothing: not the same partner's messages
/// over HTTP under the same key, not other logins' requests, not a change of the partner, not a migration that needs
/// nothing.
#[tokio::test]
async fn role_of_a_login_stops_nothing_by_an_open_transaction() {
    let app = App::new().await;
    app.partner(named("other")).await;
    let (name, mut service) = login(&app.url, "in role notihub_enqueue").await;
    let (second, mut beside) = login(&app.url, "in role notihub_enqueue").await;
    for (partner, role) in [("test", &name), ("test", &second), ("other", &second)] {
        grant(&app, partner, role).await;
    }
    let mut message = slack_post("held open");
    message["clientMsgId"] = json!("same");
    let mut open = service.begin().await.unwrap();
    run_sql(&mut open, &enqueue("test", &message)).await;

    message["body"] = json!("over HTTP");
    app.post("/v1/messages", message.clone()).await.expect(202);
    for partner in ["test", "other"] {
        run_sql(&mut beside, &enqueue(partner, &slack_post(partner))).await;
    }
    let mut relayed = relay::Relay::default();
    while relay::relay(&app.hub, &mut relayed).await.unwrap() {}
    assert_eq!(app.count("select count(*) from messages").await, 3);
    let actor = Actor::local_admin("test".into());
    let change = flow::partner::PartnerChange { rate_limit_tps: Some(7_000), ..Default::default() };
    flow::partner::update(&app.hub, actor.admin_permit().unwrap(), app.partner.partner_id, change).await.unwrap();
    assert_eq!(
        flow::partner::revoke_intake(&app.hub, actor.admin_permit().unwrap(), None, &name, false).await.unwrap(),
        1
    );
    retain::retain(&app.hub).await.unwrap();
    crate::support::database::migrate(&app.url).await;
    let locks = "select count(*) from pg_locks l join pg_stat_activity a using (pid) \
                 where a.datname = current_database() and not l.granted";
    assert_eq!(app.count(locks).await, 0);
    open.commit().await.unwrap();
    while relay::relay(&app.hub, &mut relayed).await.unwrap() {}
    assert_eq!(app.count("select count(*) from notihub.refusals where code = 'E004'").await, 1, "the key was used");
    app.work().await;
    app.done().await;
}

/// Faults C2: a login enqueues for the partners that it, or a role it is a member of, was granted. For other partners
/// the answer is the same as for partners that do not exist, with the command that would grant it.
#[tokio::test]
async fn role_of_a_login_enqueues_for_its_partners_alone() {
    let folder = Folder::new();
    let url = fresh_database().await;
    let owner = as_superuser(&url);
    let run = async |args: &[&str]| program(&folder, args, &url, Some(&owner)).run().await;
    for partner in ["orders", "billing"] {
        run(&["partner", "create", partner]).await.expect(0);
    }
    let id = run(&["partner", "show", "billing", "--output=json"]).await.expect(0).json();
    let id = id["partnerId"].as_str().unwrap();
    let (name, mut service) = login(&url, "").await;
    let message = slack_post("x");
    assert_eq!(refused(&mut service, &enqueue("orders", &message)).await.0, "42501", "no member of notihub_enqueue");

    run(&["partner", "grant", "orders", "--role", &name]).await.expect(0);
    run_sql(&mut service, &enqueue("orders", &message)).await;
    let mut shown = Vec::new();
    for partner in ["billing", id, "nobody"] {
        let (state, text, hint) = refused(&mut service, &enqueue(partner, &message)).await;
        assert_eq!(state, "NE007", "{text}");
        assert!(hint.contains(&format!("notihub partner grant '{partner}' --role '{name}'")), "{hint}");
        shown.push(text.replace(partner, "…"));
    }
    assert_eq!((&shown[0], &shown[1]), (&shown[2], &shown[2]), "its answer does not tell whether a partner exists");

    // A role whose members share its grants.
    let group = fresh_name("group");
    let mut superuser = PgConnection::connect(&owner).await.unwrap();
    run_sql(&mut superuser, &format!("create role {group}; grant {group} to {name}")).await;
    run(&["partner", "grant", "billing", "--role", &group]).await.expect(0);
    run_sql(&mut service, &enqueue("billing", &message)).await;
    let show = run(&["partner", "show", "billing", "--output=json"]).await.expect(0).json();
    assert_eq!(show["intakeRoles"], json!([group]));
    assert!(run(&["partner", "show", "orders"]).await.expect(0).stdout.contains(&name));

    let ended = run(&["partner", "revoke", "orders", "--role", &name, "--output=json"]).await.expect(0).json();
    assert_eq!(ended["ended"], 1);
    assert_eq!(refused(&mut service, &enqueue("orders", &message)).await.0, "NE007");
    let no_role = run(&["partner", "grant", "orders", "--role", "nobody-there"]).await.expect(1);
    assert!(no_role.stderr.contains("create role"), "{}", no_role.stderr);
    // A login that may not grant the membership prints the statement to run.
    let (other, _conn) = login(&url, "").await;
    let shown = program(&folder, &["partner", "grant", "orders", "--role", &other], &url, None).run().await.expect(0);
    assert!(shown.stdout.contains(&format!("grant notihub_enqueue to \"{other}\";")), "{}", shown.stdout);
    let logged = "select count(*) from audit where action in ('partner.grant_intake', 'partner.revoke_intake')";
    assert_eq!(one::<i64>(&mut superuser, logged).await, 4);
    fsck(&folder, &url).await;
}

/// Faults C2, C3: an installation whose one login owns everything is led over: its services go on enqueueing for the
/// partners there are and no others, and a login for the hub is made with the password of its URL.
#[tokio::test]
async fn role_separation_of_an_old_installation_is_made_by_migrate() {
    let folder = Folder::new();
    let (old, owner) = old_installation(true).await;
    let mut superuser = PgConnection::connect(&as_superuser(&old)).await.unwrap();
    let (service_name, mut service) = login(&old, "in role notihub_enqueue").await;
    let insert = "insert into partners (partner_id, name, shard, created_at) values (1, 'orders', 0, now()), (2, \
        'billing', 0, now())";
    run_sql(&mut superuser, insert).await;
    // A server from before has made partitions itself.
    let first = program(&folder, &["migrate"], &old, None).run().await.expect(0);
    assert!(first.stdout.contains("1 migrations applied"), "{}", first.stdout);
    assert!(first.stdout.contains(&format!("'{owner}' owns the hub's tables")), "{}", first.stdout);
    assert!(first.stdout.contains("--migrate-database-url"), "{}", first.stdout);
    let carried = format!("the login {service_name} may enqueue for billing, orders");
    assert!(first.stdout.contains(&carried), "{}", first.stdout);
    for partner in ["orders", "billing"] {
        run_sql(&mut service, &enqueue(partner, &slack_post("x"))).await;
    }
    let shown = doctor(&folder, &old, None).await;
    assert_eq!(
        (graded(&shown, "role").0.as_str(), graded(&shown, "intake roles").0.as_str()),
        ("warn", "warn"),
        "{shown}"
    );
    assert_eq!(graded(&shown, "rights").0, "ok", "{shown}");
    let worked = program(&folder, &["work", "--once"], &old, None).run().await.expect(0);
    assert!(worked.stderr.contains("owns the hub's tables"), "goes on working, and warns: {}", worked.stderr);
    program(&folder, &["partner", "create", "later"], &old, None).run().await.expect(0);
    assert_eq!(refused(&mut service, &enqueue("later", &slack_post("x"))).await.0, "NE007");

    // The hub's login: made by `migrate`, its password nowhere in clear.
    let hub_login = fresh_name("hub");
    let hub = format!("postgres://{hub_login}:a%24b%25%2Bc@{}", old.split_once('@').unwrap().1);
    let second = program(&folder, &["migrate"], &hub, Some(&old)).run().await.expect(0);
    assert!(second.stdout.contains(&format!("create role \"{hub_login}\" login")), "{}", second.stdout);
    assert!(!second.stdout.contains("owns"), "{}", second.stdout);
    assert!(!format!("{second:?}").contains("a$b%+c") && !format!("{second:?}").contains("SCRAM"), "{second:?}");
    let third = program(&folder, &["migrate"], &hub, Some(&old)).run().await.expect(0);
    assert!(
        third.stdout.starts_with("the schema is up to date\n") && !third.stdout.contains("repaired"),
        "{}",
        third.stdout
    );
    program(&folder, &["work", "--once"], &hub, None).run().await.expect(0);
    assert_eq!(graded(&doctor(&folder, &hub, None).await, "role").0, "ok");
    let refused_twice = program(&folder, &["migrate"], &hub, None).run().await.expect(0);
    assert!(refused_twice.stdout.contains("up to date"), "the hub's login has nothing to migrate");

    program(&folder, &["partner", "grant", "orders", "--role", &service_name], &hub, Some(&old)).run().await.expect(0);
    let revoke = ["partner", "revoke", "--carried-over", "--role", &service_name];
    program(&folder, &revoke, &hub, None).run().await.expect(0);
    run_sql(&mut service, &enqueue("orders", &slack_post("x"))).await;
    assert_eq!(refused(&mut service, &enqueue("billing", &slack_post("x"))).await.0, "NE007");
    // Logins of other tests are members of the server's role, too.
    let left = format!("select count(*) from intake_grants where carried_over and role_name = '{service_name}'");
    assert_eq!(one::<i64>(&mut superuser, &left).await, 0);
    fsck(&folder, &hub).await;
}

/// Faults C3: where the owner may make no roles, `migrate` names the statements for an administrator and the hub works
/// on.
#[tokio::test]
async fn role_statements_are_named_where_the_owner_may_make_none() {
    let folder = Folder::new();
    let (old, _) = old_installation(false).await;
    let hub = format!("postgres://{}:secret@{}", fresh_name("hub"), old.split_once('@').unwrap().1);
    let shown = program(&folder, &["migrate"], &hub, Some(&old)).run().await;
    assert!(shown.stderr.contains("cannot use it") && !format!("{shown:?}").contains("secret"), "{shown:?}");
    assert!(shown.stdout.contains("in role notihub_app password '…';"), "{shown:?}");
    let alone = program(&folder, &["migrate", "--output=json"], &old, None).run().await.expect(0).json();
    assert_eq!(alone["missing"], 0);
    program(&folder, &["work", "--once"], &old, None).run().await.expect(0);
    let stranger = program(&folder, &["migrate"], &old.replace("owner@", "wrong@"), None).run().await.expect(1);
    assert!(stranger.stderr.contains("password"), "{}", stranger.stderr);
}
