//! fsck: each invariant finds the rows that break it, and each statement reads tables once, under any statistics.

use chrono::{DateTime, TimeDelta, Utc};
use notihub::flow::fsck::{Progress, fsck};
use notihub::id::Tsid;
use notihub::limits;
use notihub::model::channel::CHANNELS;
use notihub::model::delivery::UNCALLED_ENDINGS;
use notihub::model::lane::Lane;
use notihub::store::fsck::{INVARIANTS, IdRange, check, id_ranges};
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, raw_sql};

use crate::support::app::{App, email};
use crate::support::sql::move_send_records;

/// The tables that a test breaks; each is saved as `kept.t{n}` and restored.
const BOOKS: [&str; 13] = [
    "messages",
    "deliveries",
    "attempts",
    "events",
    "idempotency",
    "receipts",
    "partners",
    "workers",
    "stat_deltas",
    "partner_daily_stats",
    "provider_states",
    "provider_holds",
    "notihub.requests",
];

async fn execute(conn: &mut PgConnection, sql: &str) {
    raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// The findings of all invariants: (invariant, text).
async fn findings(app: &App) -> Vec<(&'static str, String)> {
    let found = fsck(&app.hub.store, app.hub.clock.now(), |_| ()).await.unwrap();
    found.into_iter().map(|f| (f.invariant, format!("{}-{} {}", f.message_id, f.no, f.found))).collect()
}

/// Posts three mails and returns their ids: the first is sent, the second is refused, the third waits.
async fn books(app: &App) -> (String, String, String) {
    let mut kept = Vec::new();
    for (to, worked) in [("kim@example.com", true), ("bounce@example.com", true), ("lee@example.com", false)] {
        let mut body = email(to);
        body["clientMsgId"] = json!(to);
        kept.push(app.post("/v1/messages", body).await.expect(202).id());
        if worked {
            app.work().await;
        }
    }
    let [sent, failed, waits] = <[String; 3]>::try_from(kept).unwrap();
    for (id, status) in [(&sent, "SENT"), (&failed, "FAILED"), (&waits, "PENDING")] {
        assert_eq!(app.message(id).await["deliveries"][0]["status"], status);
    }
    (sent, failed, waits)
}

/// Changes the tables with `sql`, and returns the findings. The tables are then restored.
async fn broken(app: &App, sql: &str) -> Vec<(&'static str, String)> {
    let mut conn = PgConnection::connect(&app.url).await.unwrap();
    execute(&mut conn, "drop schema if exists kept cascade; create schema kept").await;
    for (n, table) in BOOKS.iter().enumerate() {
        execute(&mut conn, &format!("create table kept.t{n} as table {table}")).await;
    }
    execute(&mut conn, sql).await;
    let found = findings(app).await;
    for (n, table) in BOOKS.iter().enumerate() {
        let overriding = if table.contains('.') { "overriding system value" } else { "" };
        execute(&mut conn, &format!("truncate {table}; insert into {table} {overriding} table kept.t{n}")).await;
    }
    execute(&mut conn, "drop schema kept cascade").await;
    found
}

/// Faults A4, A5: each invariant is broken by hand at least once, and fsck names it.
#[tokio::test]
async fn fsck_broken_books_names_the_invariant() {
    let app = App::new().await;
    let (sent, failed, waits) = books(&app).await;
    assert_eq!(findings(&app).await, []);
    let mut conn = PgConnection::connect(&app.url).await.unwrap();
    execute(&mut conn, "alter table deliveries drop constraint ck_delivery_lease").await;
    move_send_records(&mut conn, 1).await;
    let now = app.hub.clock.now();
    let [sent_id, failed_id, waits_id] = [&sent, &failed, &waits].map(|id| id.parse::<Tsid>().unwrap().0);
    let (sent_row, failed_row) = (format!("where message_id = {sent_id}"), format!("where message_id = {failed_id}"));
    let waits_row = format!("where message_id = {waits_id}");
    let receipt = format!(
        "insert into receipts (provider, event_key, received_at, shard, message_id, no, attempt, outcome, try_at, \
           applied_at, effect) \
         select 'smtp', 'k', '{now}', shard, message_id, 1, 1, 'DELIVERED', timestamptz '{now}' - interval '1 h'"
    );
    let cases: Vec<(&str, String, String)> = vec![
        ("lease", format!("update deliveries set status = 'PROCESSING' {waits_row}"), format!("{waits}-1 PROCESSING")),
        (
            "attempts",
            format!("update deliveries set attempt = 2 {sent_row}"),
            format!("{sent}-1 SENT, attempt 2, rows 1, highest 1"),
        ),
        (
            "in_flight",
            format!("update attempts set outcome = 'IN_FLIGHT' {sent_row}"),
            format!("{sent}-1 attempt 1 of 1, SENT"),
        ),
        (
            "not_sent",
            format!("update attempts set outcome = 'ACCEPTED' {failed_row}"),
            format!("{failed}-1 FAILED, but attempt 1 ACCEPTED"),
        ),
        (
            "sent",
            format!("update attempts set outcome = 'REJECTED' {sent_row}"),
            format!("{sent}-1 SENT without an accepted attempt"),
        ),
        (
            "sent",
            format!("update deliveries set status = 'DELIVERED' {sent_row}"),
            format!("{sent}-1 DELIVERED without its receipt"),
        ),
        (
            "sent",
            format!("update deliveries set status = 'CANCELED' {sent_row}"),
            format!("{sent}-1 attempt 1 accepted, but CANCELED"),
        ),
        ("doubt", format!("update attempts set outcome = 'UNKNOWN' {sent_row}"), format!("{sent}-1 attempt 1 unknown")),
        (
            "tried",
            format!("update attempts set outcome = 'NOT_CALLED', called_at = null {failed_row}"),
            format!("{failed}-1 FAILED (no_such_recipient) after 1 attempts, none of which was called"),
        ),
        (
            "tried",
            format!("delete from attempts {failed_row}; update deliveries set status = 'UNDETERMINED' {failed_row}"),
            format!("{failed}-1 UNDETERMINED (no_such_recipient) after 1 attempts, none of which was called"),
        ),
        (
            "events",
            format!("update deliveries set event_seq = 7 {sent_row}"),
            format!("{sent}-1 event_seq 7, rows 1, highest 1"),
        ),
        (
            "events",
            format!("update events set no = 0 {sent_row}"),
            format!("{sent}-0 events of the whole: 1, highest 1"),
        ),
        (
            "told",
            format!("update events set event = 'delivery.failed' {sent_row}"),
            format!("{sent}-1 SENT, last event delivery.failed"),
        ),
        (
            "final",
            format!(
                "insert into events select shard, message_id, no, 2, 1, 'delivery.canceled', null, occurred_at \
                 from events {sent_row}"
            ),
            format!("{sent}-1 delivery.canceled after delivery.sent"),
        ),
        (
            "spent",
            format!("update deliveries set attempt = max_attempts {waits_row}"),
            format!("{waits}-1 PENDING with 13 of 13 attempts spent"),
        ),
        (
            "stuck",
            format!("update deliveries set status = 'SCHEDULED', ready_at = ready_at - interval '1 h' {waits_row}"),
            format!("{waits}-1 SCHEDULED since "),
        ),
        (
            "stuck",
            format!(
                "update deliveries set status = 'PROCESSING', worker = 1, \
                   lease_until = clock_timestamp() - interval '6 minutes' {waits_row}"
            ),
            format!("{waits}-1 PROCESSING since "),
        ),
        (
            "turn",
            format!("update deliveries set ready_at = ready_at - interval '6 minutes' {waits_row}"),
            format!("{waits}-1 PENDING since "),
        ),
        (
            "put_off",
            format!(
                "insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, code) \
                 select shard, message_id, no, n, 'NOT_CALLED', 1, ready_at + n * interval '3 minutes', 'postponed' \
                 from deliveries, generate_series(1, 3) n {waits_row}; \
                 update deliveries set attempt = 3, max_attempts = 6 {waits_row}"
            ),
            format!("{waits}-1 PENDING, put off 3 times from "),
        ),
        ("whole", format!("delete from deliveries {sent_row}"), format!("{sent}-0 message without deliveries")),
        (
            "whole",
            format!("delete from messages {sent_row}"),
            format!("{sent}-1 delivery without its message, or of another partner"),
        ),
        ("whole", format!("update attempts set no = 9 {sent_row}"), format!("{sent}-9 attempt 1 without its delivery")),
        ("whole", format!("update events set no = 9 {sent_row}"), format!("{sent}-9 event 1 without its delivery")),
        (
            "whole",
            format!("delete from messages {sent_row}; update events set no = 0 {sent_row}"),
            format!("{sent}-0 event 1 without its message"),
        ),
        ("keys", format!("delete from idempotency {sent_row}"), format!("{sent}-0 message without its key")),
        ("keys", format!("delete from messages {sent_row}"), format!("{sent}-0 key without its message")),
        (
            "shards",
            "update partners set shard = shard + 1".into(),
            format!(
                "{sent}-0 on shard {0}, its partner on {1}, with 2 others",
                app.partner.shard,
                app.partner.shard + 1
            ),
        ),
        (
            "nets",
            format!(
                "insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at) \
                 select shard, 1, partner_id, kind, priority, detail, created_at from messages {sent_row}"
            ),
            format!("{}-0 in messages_default", Tsid(1)),
        ),
        (
            "notices",
            format!(
                "insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at, about) \
                 select shard, message_id + 1, partner_id, kind, priority, \
                   '{{\"contents\": [{{\"event\": {{\"no\": 1, \"seq\": 5}}}}]}}', created_at, message_id \
                 from messages {sent_row}"
            ),
            format!("{}-0 tells of event 1-5 of {sent_id}, which is not in the books", Tsid(sent_id + 1)),
        ),
        (
            "relayed",
            "insert into notihub.requests (partner_id, body, enqueued_at) \
             values (1, '{}', clock_timestamp() - interval '6 minutes')"
                .into(),
            format!("{}-0 request 1 of partner 1 waits since ", Tsid(0)),
        ),
        (
            "receipts",
            format!("{receipt}, '{now}', 'applied' from messages {sent_row}"),
            format!("{sent}-1 receipt k of attempt 1 says DELIVERED, the attempt none"),
        ),
        (
            "receipts",
            format!("update attempts set receipt = 'DELIVERED' {sent_row}"),
            format!("{sent}-1 attempt 1 arrived, but SENT"),
        ),
        (
            "unapplied",
            format!("{receipt}, null, null from messages {sent_row}"),
            format!("{sent}-1 receipt k of smtp waits since "),
        ),
        (
            "fallback",
            format!("update deliveries set chain = 9 {sent_row}"),
            format!("{sent}-1 1 stands for 9, which is not there"),
        ),
        (
            "fallback",
            format!(
                "update deliveries set chain = 1 {sent_row}; update events set event = 'delivery.fallback' {sent_row}"
            ),
            format!("{sent}-1 1 deliveries in its chain, 1 times told"),
        ),
        (
            "stats",
            "update stat_deltas set total = total + 1".into(),
            "EMAIL: counted 4, success 1, failed 1; there are 2, success 1, failed 1".into(),
        ),
    ];
    let mut missed = Vec::new();
    for (invariant, sql, expected) in &cases {
        let found = broken(&app, sql).await;
        if !found.iter().any(|(name, text)| name == invariant && text.contains(expected.as_str())) {
            missed.push(format!("{invariant}: {expected}: {sql}: {found:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let without: Vec<&str> = INVARIANTS
        .iter()
        .map(|(name, ..)| *name)
        .filter(|name| *name != "moving" && !cases.iter().any(|(invariant, ..)| invariant == name))
        .collect();
    assert_eq!(without, [""; 0], "invariants without a case");
    assert_eq!(findings(&app).await, []);
    app.settle_all().await;
    app.done().await;
}

/// A record of a send in the delivery's own row counts as its attempt and its event: what contradicts it is found.
#[tokio::test]
async fn fsck_broken_record_of_a_send_is_found() {
    let app = App::new().await;
    let (sent, ..) = books(&app).await;
    let mut conn = PgConnection::connect(&app.url).await.unwrap();
    execute(&mut conn, "alter table deliveries drop constraint ck_delivery_send_record").await;
    let of_sent = format!("where message_id = {}", sent.parse::<Tsid>().unwrap().0);
    let attempts = "shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at, provider";
    let cases = [
        ("attempts", "update deliveries set attempt = 2".to_owned(), "-1 SENT, attempt 2, rows 1, highest 2"),
        (
            "attempts",
            format!("insert into attempts ({attempts}) select {attempts} from attempt_history"),
            "-1 SENT, attempt 1, rows 2, highest 1",
        ),
        ("events", "update deliveries set event_seq = 2".to_owned(), "-1 event_seq 2, rows 1, highest 2"),
        ("sent", "update deliveries set sent_called_at = null".to_owned(), "-1 SENT without an accepted attempt"),
        ("told", "update deliveries set status = 'DELIVERED'".to_owned(), "-1 DELIVERED, last event delivery.sent"),
        (
            "receipts",
            "insert into receipts (provider, event_key, received_at, shard, message_id, no, attempt, outcome, try_at, \
               applied_at, effect) \
             select 'smtp', 'k', settled_at, shard, message_id, 1, 1, 'DELIVERED', settled_at, settled_at, 'applied' \
             from deliveries"
                .to_owned(),
            "-1 receipt k of attempt 1 says DELIVERED, the attempt none",
        ),
    ];
    for (invariant, sql, expected) in cases {
        let found = broken(&app, &format!("{sql} {of_sent}")).await;
        let expected = format!("{sent}{expected}");
        assert!(found.contains(&(invariant, expected.clone())), "{expected}: {sql}: {found:#?}");
    }
    assert_eq!(findings(&app).await, []);
    app.settle_all().await;
    app.done().await;
}

/// Faults A5: a channel without calls while workers run is found. It is not found where its provider is paused, open or
/// was limited, after a call in the last minutes, or without workers: then its deliveries wait for a reason.
#[tokio::test]
async fn fsck_channel_without_calls_is_found_unless_its_provider_is_held() {
    let app = App::new().await;
    let (_, _, waits) = books(&app).await;
    app.advance(600);
    let now = app.hub.clock.now();
    let workers = format!(
        "insert into workers select 1, 'h', 1, 'v', timestamptz '{now}' - interval '9 minutes', \
         timestamptz '{now}' - interval '10 seconds';"
    );
    let found = |found: Vec<(&'static str, String)>| found.into_iter().map(|(name, text)| format!("{name} {text}"));
    let still: Vec<String> = found(broken(&app, &workers).await).collect();
    assert_eq!(still.len(), 1, "{still:?}");
    assert!(still[0].starts_with(&format!("moving {waits}-1 EMAIL: PENDING since")), "{still:?}");
    let state = |provider: &str, breaker: &str, paused: &str| {
        format!(
            "{workers} insert into provider_states (provider, breaker, paused_at, changed_at) \
             values ('{provider}', '{breaker}', {paused}, '{now}')"
        )
    };
    let hold = |provider: &str, minutes: i32| {
        format!(
            "{workers} insert into provider_holds values ('{provider}', timestamptz '{now}' - interval '1 h', \
               timestamptz '{now}' - interval '{minutes} minutes', 'limited')"
        )
    };
    // Slack has an ended delivery of its own, which shows fsck the channel that it serves.
    let slack = "update deliveries set provider = 'slack', lane = 8 where status = 'FAILED';\
                 update stat_deltas set lane = 8 where failed = 1;";
    for (what, sql, is_found) in [
        ("its provider is paused", state("smtp", "CLOSED", &format!("'{now}'")), false),
        ("its breaker is open", state("smtp", "OPEN", "null"), false),
        ("it was limited", hold("smtp", 1), false),
        ("it was limited long ago", hold("smtp", 6), true),
        ("its provider is well", state("smtp", "CLOSED", "null"), true),
        ("an unknown provider is down", state("other", "OPEN", "null"), false),
        ("another channel's provider is down", format!("{slack}{}", state("slack", "OPEN", "null")), true),
        ("it was called", format!("{workers} update attempts set called_at = '{now}'"), false),
        ("workers have just started", workers.replace("9 minutes", "1 minute"), false),
        ("workers are gone", workers.replace("10 seconds", "2 minutes"), false),
    ] {
        let found: Vec<String> = found(broken(&app, &sql).await).collect();
        assert_eq!(found.iter().any(|f| f.starts_with("moving ")), is_found, "{what}: {found:?}");
    }
    app.settle_all().await;
    app.done().await;
}

/// Faults A5: fsck accepts each ending of `UNCALLED_ENDINGS` without a call.
#[tokio::test]
async fn fsck_endings_without_a_call_are_clean() {
    let app = App::new().await;
    books(&app).await;
    for ending in UNCALLED_ENDINGS {
        for sql in [
            format!("update deliveries set reason = '{ending}' where status = 'FAILED'"),
            format!("update attempts set code = '{ending}' where outcome = 'NOT_CALLED'"),
        ] {
            let uncalled = "update attempts set outcome = 'NOT_CALLED', called_at = null where outcome = 'REJECTED';";
            assert_eq!(broken(&app, &format!("{uncalled}{sql}")).await, [], "{sql}");
        }
    }
    app.settle_all().await;
    app.done().await;
}

/// Faults A4: slices are whole weeks that follow each other, of bounded size; a week above the bound is a slice of its
/// own. Rows of every slice are checked, and all findings are counted though few are kept.
#[tokio::test]
async fn fsck_slices_cover_all_messages() {
    let app = App::new().await;
    let mut conn = app.hub.store.connect_for_fsck().await.unwrap();
    assert_eq!(id_ranges(&mut conn, limits::FSCK_SLICE_BYTES).await.unwrap(), [IdRange::ALL]);
    for week in 1..3 {
        let then = app.hub.clock.now() + TimeDelta::weeks(week * 2);
        fill(&app, then, 1_500, 0).await;
    }
    let parts = id_ranges(&mut conn, 1).await.unwrap();
    assert_eq!(parts.len(), 2, "{parts:?}");
    assert_eq!((parts[0].0, parts[1].1), (IdRange::ALL.0, IdRange::ALL.1));
    assert_eq!(parts[0].1, parts[1].0);
    raw_sql("update deliveries set event_seq = 7").execute(&app.db().await).await.unwrap();
    for part in parts {
        let found = check(&mut conn, "events", part, app.hub.clock.now()).await.unwrap();
        // A mail and a webhook of each.
        assert_eq!((found.rows, found.findings.len()), (3_000, limits::FSCK_FINDINGS));
    }
    let mut rows = 0;
    let progress = |progress| {
        if let Progress::Checked { invariant: "events", rows: of, .. } = progress {
            rows = of;
        }
    };
    fsck(&app.hub.store, app.hub.clock.now(), progress).await.unwrap();
    assert_eq!(rows, 6_000);
    raw_sql("update deliveries set event_seq = 1").execute(&app.db().await).await.unwrap();
    app.done().await;
}

/// Inserts `n` sent messages of time `at` with keys, receipts and the webhook of each; ids begin `from` steps after the
/// first id of `at`.
async fn fill(app: &App, at: DateTime<Utc>, n: i64, from: i64) {
    let (partner, shard, first) = (app.partner.partner_id.0, app.partner.shard, Tsid::floor(at).0 + from * 4096);
    let mut conn = PgConnection::connect(&app.url).await.unwrap();
    execute(&mut conn, &filling(partner, shard, first, at, n)).await;
}

fn filling(partner: i64, shard: i16, first: i64, at: DateTime<Utc>, n: i64) -> String {
    format!(
        "with n as (select {first} + n * 4096 as id, timestamptz '{at}' as at from generate_series(1, {n}) as n),
         m as (insert into messages (shard, message_id, partner_id, client_msg_id, kind, priority, detail, created_at)
           select {shard}, id, {partner}, 'k' || id, 'T', 'NORMAL',
             '{{\"contents\": [{{\"body\": \"b\"}}]}}', at from n),
         i as (insert into idempotency select {shard}, {partner}, 'k' || id, id, '' from n),
         w as (insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at, about)
           select {shard}, id + 1, {partner}, 'event', 'NORMAL',
             '{{\"contents\": [{{\"event\": {{\"no\": 1, \"seq\": 1}}}}]}}', at, id from n),
         d as (insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, event_seq, status,
             partner_id, ready_at, settled_at, recipient, provider)
           select {shard}, id + l / 67, 1, l, 1, 3, 0, 1, 'SENT', {partner}, at, at, 'a@example.com', 'smtp'
           from n, unnest(array[2, 68]) l),
         a as (insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at)
           select {shard}, id + l, 1, 1, 'ACCEPTED', 1, at, at, at from n, generate_series(0, 1) l),
         r as (insert into receipts (provider, event_key, received_at, shard, message_id, no, attempt, outcome, try_at,
             applied_at, effect)
           select 'smtp', id, at, {shard}, id, 1, 1, 'ACCEPTED', at, at, 'unmatched' from n),
         c as (insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
           select {partner}, at, l, 1, 1, 0 from n, unnest(array[2, 68]) l)
         insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
           select {shard}, id + l, 1, 1, 1, 'delivery.sent', at from n, generate_series(0, 1) l"
    )
}

/// Faults A4: under any statistics each node of each statement's plan runs once, tables are read in full and joined by
/// hash, and no hash table is larger than 128 MiB.
#[tokio::test]
async fn fsck_statements_under_any_statistics_read_tables_once() {
    const ROWS: i64 = 10_000;
    let app = App::new().await;
    let now = app.hub.clock.now();
    let mut db = PgConnection::connect(&app.url).await.unwrap();
    let tables = "select format('alter table %s set (autovacuum_enabled = off)', oid::regclass) from pg_class \
                  where relkind = 'r' and relnamespace = 'public'::regnamespace";
    let off: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut db).await.unwrap();
    execute(&mut db, &format!("{}; analyze", off.join(";"))).await;
    fill(&app, now, ROWS, 0).await;
    // Some deliveries wait, so that the statements about waiting deliveries have rows to join.
    let waiting = "update deliveries set status = 'PENDING', attempt = 0 where message_id % 8192 = 0 and lane = 2";
    execute(&mut db, waiting).await;
    let types: Vec<&str> = CHANNELS.iter().flat_map(|c| Lane::all_of(&[*c]).into_iter().map(|_| c.as_str())).collect();
    let types = format!("'{{{}}}'", types.join(","));
    let all = format!("{}, {}", i64::MIN, i64::MAX);
    let mut conn = app.hub.store.connect_for_fsck().await.unwrap();
    for statistics in ["of empty tables", "while an insert was not committed", "of full tables", "none"] {
        match statistics {
            "while an insert was not committed" => {
                let mut other = PgConnection::connect(&app.url).await.unwrap();
                let mut tx = db.begin().await.unwrap();
                let later = now + TimeDelta::days(14);
                let first = Tsid::floor(later).0;
                let sql = filling(app.partner.partner_id.0, app.partner.shard, first, later, ROWS);
                execute(&mut tx, &sql).await;
                execute(&mut other, "analyze").await;
                tx.commit().await.unwrap();
            }
            "of full tables" => execute(&mut db, "analyze").await,
            "none" => {
                let none = "delete from pg_statistic; update pg_class set reltuples = -1, relpages = 0 \
                            where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace";
                execute(&mut db, none).await;
            }
            _ => (),
        }
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/fsck")).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let args = match name.as_str() {
                "stats" => types.clone(),
                "unapplied" => format!("'{now}'"),
                "stuck" => format!("'{now}', {all}"),
                "moving" => format!("'{now}', {types}"),
                "tried" => format!("'{{never_begun}}', {all}"),
                "turn" | "nets" | "relayed" => String::new(),
                _ => all.clone(),
            };
            let text = std::fs::read_to_string(&path).unwrap();
            let plan = explain(&mut conn, &text, "costs off", &args).await;
            let kinds = nodes(&plan, "Node Type");
            let quadratic = |kind: &&String| {
                ["Nested", "Merge Join", "Index", "Bitmap", "Memoize", "Gather"].iter().any(|bad| kind.contains(bad))
            };
            assert_eq!(kinds.iter().find(quadratic), None, "{name}, statistics {statistics}: {plan:#}");
            let parents = nodes(&plan, "Parent Relationship");
            assert!(!parents.contains(&"SubPlan".to_owned()), "{name}, statistics {statistics}: {plan:#}");
            // The plan is checked, so it is safe to run.
            let plan = explain(&mut conn, &text, "analyze, costs off, timing off", &args).await;
            let loops: Vec<i64> = nodes(&plan, "Actual Loops").iter().map(|n| n.parse().unwrap()).collect();
            assert!(loops.iter().all(|n| *n <= 1), "{name}, statistics {statistics}: {plan:#}");
            for thrown in nodes(&plan, "Rows Removed by Join Filter") {
                assert!(thrown.parse::<i64>().unwrap() <= 2 * ROWS, "{name}, statistics {statistics}: {plan:#}");
            }
            for kilobytes in nodes(&plan, "Peak Memory Usage") {
                assert!(kilobytes.parse::<i64>().unwrap() <= 128 << 10, "{name}, statistics {statistics}: {plan:#}");
            }
        }
    }
    execute(&mut db, "truncate messages, deliveries, attempts, events, idempotency, receipts, stat_deltas").await;
    app.done().await;
}

async fn explain(conn: &mut PgConnection, text: &str, how: &str, args: &str) -> Value {
    execute(conn, &format!("prepare explained as {text}")).await;
    let args = if args.is_empty() { String::new() } else { format!("({args})") };
    let explain = format!("explain ({how}, format json) execute explained{args}");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *conn).await.unwrap();
    execute(conn, "deallocate explained").await;
    plan[0]["Plan"].clone()
}

/// A property of each node that has it.
fn nodes(node: &Value, name: &str) -> Vec<String> {
    let own = match &node[name] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let below = node["Plans"].as_array().into_iter().flatten().flat_map(|child| nodes(child, name));
    own.into_iter().chain(below).collect()
}
