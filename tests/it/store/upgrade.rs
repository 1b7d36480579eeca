//! Upgrades: a database of each earlier version, with the rows that its program left, is migrated and goes on.

use chrono::{DateTime, Datelike as _, Days, NaiveTime, TimeDelta, Utc};
use notihub::id::Tsid;
use notihub::model::access::role::StaffRole;
use serde_json::{Value, json};
use sqlx::migrate::{Migrate as _, Migration, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};

use crate::support::app::{App, start_time};
use crate::support::database::{database_url, migrate, server_url};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The partner that the earlier program knew, and its shard.
const PARTNER: (i64, i16) = (4096, 3);

async fn run(conn: &mut PgConnection, sql: String) {
    raw_sql(AssertSqlSafe(sql.clone())).execute(conn).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// A message and its only delivery, as the program of a version wrote them.
struct Row {
    status: &'static str,
    reason: Option<&'static str>,
    /// The outcome of its only attempt; none when no worker claimed it.
    outcome: Option<&'static str>,
    /// The event that reports its ending; none while it is unsettled.
    event: Option<&'static str>,
    /// What it adds to the statistics: total, success, failed.
    counts: [i16; 3],
    /// Its status after the upgrade, when all that is due was sent.
    ends: &'static str,
}

const ROWS: [Row; 6] = [
    Row {
        status: "SENT",
        reason: None,
        outcome: Some("ACCEPTED"),
        event: Some("delivery.sent"),
        counts: [1, 1, 0],
        ends: "SENT",
    },
    Row {
        status: "FAILED",
        reason: Some("no_such_recipient"),
        outcome: Some("REJECTED"),
        event: Some("delivery.failed"),
        counts: [1, 0, 1],
        ends: "FAILED",
    },
    Row {
        status: "UNDETERMINED",
        reason: Some("no_answer"),
        outcome: Some("UNKNOWN"),
        event: Some("delivery.undetermined"),
        counts: [1, 0, 0],
        ends: "UNDETERMINED",
    },
    Row {
        status: "CANCELED",
        reason: Some("canceled"),
        outcome: None,
        event: Some("delivery.canceled"),
        counts: [0, 0, 0],
        ends: "CANCELED",
    },
    Row { status: "PENDING", reason: None, outcome: None, event: None, counts: [0, 0, 0], ends: "SENT" },
    Row { status: "SCHEDULED", reason: None, outcome: None, event: None, counts: [0, 0, 0], ends: "SENT" },
];

/// The id of the message with this position in `ROWS`.
fn id(n: usize) -> Tsid {
    Tsid(Tsid::floor(start_time() - TimeDelta::hours(1)).0 + i64::try_from(n).unwrap() * 4096)
}

fn text(value: Option<&str>) -> String {
    value.map_or("null".to_owned(), |word| format!("'{word}'"))
}

/// The rows of a database whose newest migration is `version`.
async fn fill(conn: &mut PgConnection, version: i64) {
    let (partner, shard) = PARTNER;
    let now = start_time() - TimeDelta::hours(1);
    // The earlier program made the partitions of its week.
    let monday = now.date_naive() - Days::new(u64::from(now.weekday().num_days_from_monday()));
    let first = |day: chrono::NaiveDate| Tsid::floor(day.and_time(NaiveTime::MIN).and_utc()).0;
    for table in ["messages", "deliveries", "attempts", "events"] {
        let (from, to) = (first(monday), first(monday + Days::new(7)));
        let name = format!("{table}_{}", monday.format("%Y%m%d"));
        run(conn, format!("create table public.{name} partition of public.{table} for values from ({from}) to ({to})"))
            .await;
    }
    run(
        conn,
        format!(
            "insert into partners (partner_id, name, shard, created_at) values ({partner}, 'earlier', {shard}, '{now}')"
        ),
    )
    .await;
    for (n, row) in ROWS.iter().enumerate() {
        let message_id = id(n).0;
        let (reason, settled) = (text(row.reason), row.event.map_or("null".to_owned(), |_| format!("'{now}'")));
        let attempts = i16::from(row.outcome.is_some());
        let ready: DateTime<Utc> = if row.status == "SCHEDULED" { start_time() + TimeDelta::minutes(1) } else { now };
        let scheduled = if row.status == "SCHEDULED" { format!("'{ready}'") } else { "null".to_owned() };
        let unknown = row.outcome == Some("UNKNOWN");
        run(
            conn,
            format!(
                "insert into messages (shard, message_id, partner_id, client_msg_id, kind, priority, detail, created_at,
                   scheduled_at)
                 values ({shard}, {message_id}, {partner}, 'key-{n}', 'ORDER', 'NORMAL',
                   '{{\"contents\": [{{\"subject\": \"Hello\", \"body\": \"It works.\"}}]}}', '{now}', {scheduled});
                 insert into idempotency (shard, partner_id, client_msg_id, message_id, fingerprint)
                 values ({shard}, {partner}, 'key-{n}', {message_id}, '\\x00');
                 insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, event_seq, status,
                   possibly_sent, partner_id, ready_at, settled_at, recipient, provider, reason)
                 values ({shard}, {message_id}, 1, 2, {attempts}, 3, 0, {events}, '{status}', {unknown}, {partner},
                   '{ready}', {settled}, 'kim@example.com', {provider}, {reason})",
                events = i16::from(row.event.is_some()),
                status = row.status,
                provider = text(row.outcome.map(|_| "smtp")),
            ),
        )
        .await;
        if let Some(outcome) = row.outcome {
            let attempt = format!(
                "insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at,
                   provider, reason)
                 values ({shard}, {message_id}, 1, 1, '{outcome}', 1, '{now}', '{now}', '{now}', 'smtp', {reason})"
            );
            run(conn, attempt).await;
        }
        if let Some(event) = row.event {
            let event = format!(
                "insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
                 values ({shard}, {message_id}, 1, 1, {attempts}, '{event}', {reason}, '{now}')"
            );
            run(conn, event).await;
        }
        let [total, success, failed] = row.counts;
        // Migration 4 counts what ended before it.
        if version >= 4 && total > 0 {
            let counts =
                format!("insert into stat_deltas values ({partner}, '{now}', 2, {total}, {success}, {failed})");
            run(conn, counts).await;
        }
    }
    if version >= 2 {
        let entry = format!(
            "insert into audit (audit_id, at, actor, role, action, object) \
             values ({}, '{now}', 'kim', 'ADMIN', 'partner.create', '{partner}')",
            id(0).0
        );
        run(conn, entry).await;
    }
}

/// A database of each version but the newest is filled with what the program of that version wrote, and migrated. The
/// books are clean then, operators read every message, what waited is sent, and the statistics and the audit log go on.
#[tokio::test]
async fn upgrade_from_each_earlier_schema_keeps_its_rows() {
    const TABLE: &str = "_sqlx_migrations";
    let names = |n: usize| format!("upgrade_{}_{n}", std::process::id());
    let mut server = PgConnection::connect(&server_url()).await.unwrap();
    let migrations: Vec<&Migration> = MIGRATIONS.iter().collect();
    for (n, migration) in migrations.iter().enumerate().take(migrations.len() - 1) {
        let earlier = if n == 0 { String::new() } else { format!(" template {}", names(n - 1)) };
        run(&mut server, format!("create database {}{earlier}", names(n))).await;
        // The next version begins with this one's empty database: what is filled is a copy.
        let base = database_url(&names(n));
        let mut conn = PgConnection::connect(&base).await.unwrap();
        // A schema of the same name as the login would come first.
        run(&mut conn, "set search_path = public".to_owned()).await;
        conn.ensure_migrations_table(TABLE).await.unwrap();
        conn.apply(TABLE, migration).await.unwrap();
        conn.close().await.unwrap();
        run(&mut server, format!("create database {0}_filled template {0}", names(n))).await;

        let version = migration.version;
        let url = database_url(&format!("{}_filled", names(n)));
        let mut conn = PgConnection::connect(&url).await.unwrap();
        run(&mut conn, "set search_path = public".to_owned()).await;
        fill(&mut conn, version).await;
        conn.close().await.unwrap();
        migrate(&url).await;

        let app = App::on(&url).await;
        let findings = notihub::flow::fsck::fsck(&app.hub.store, app.hub.clock.now(), |_| ()).await.unwrap();
        assert!(findings.is_empty(), "from version {version}: {findings:#?}");
        app.advance(60);
        app.settle_all().await;
        let operator = app.staff(StaffRole::Operator).await;
        for (n, row) in ROWS.iter().enumerate() {
            let path = format!("/v1/messages/{}", id(n));
            let message = app.ask(&operator, "GET", &path, None).await.expect(200).body;
            let delivery = &message["deliveries"][0];
            assert_eq!(delivery["status"], row.ends, "from version {version}: {message}");
            assert_eq!(delivery["reason"], row.reason.map_or(Value::Null, |word| json!(word)), "{message}");
            assert_eq!(message["clientMsgId"], format!("key-{n}"));
        }
        assert_eq!(app.smtp.records().len(), 2);
        let listed = format!("/v1/messages?partnerId={}", Tsid(PARTNER.0));
        let listed = app.ask(&operator, "GET", &listed, None).await.expect(200).body;
        assert_eq!(listed["items"].as_array().unwrap().len(), ROWS.len(), "from version {version}");
        let counted = "select (select coalesce(sum(total), 0) from stat_deltas)::bigint \
                       + (select coalesce(sum(total), 0) from partner_daily_stats)::bigint";
        assert_eq!(app.count(counted).await, 5, "from version {version}");
        if version >= 2 {
            assert_eq!(app.count("select count(*) from audit where actor = 'kim'").await, 1);
        }
        app.done().await;
    }
}
