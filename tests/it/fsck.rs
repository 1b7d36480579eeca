//! fsck: each invariant finds the rows that break it, and each statement is bounded by its slice, under any statistics.

use chrono::{DateTime, TimeDelta, Utc};
use nix::sys::signal::Signal;
use notihub::clock::Clock;
use notihub::flow::fsck::{Check, Coverage, Position, Step, Watch, fsck};
use notihub::id::Tsid;
use notihub::limits;
use notihub::model::channel::CHANNELS;
use notihub::model::delivery::UNCALLED_ENDINGS;
use notihub::model::lane::Lane;
use notihub::store::Conn;
use notihub::store::fsck::{INVARIANTS, Slice, check_keys, check_slice, key_slices, shards, slices};
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, raw_sql};

use crate::support::app::{App, email};
use crate::support::process::{Folder, on};
use crate::support::sql::move_send_records;
use crate::support::wait::until;

/// The tables that a test breaks; each is saved as `kept.t{n}` and restored.
const BOOKS: [&str; 24] = [
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
    "users",
    "user_heads",
    "inbox_items",
    "stream_events",
    "credentials",
    "devices",
    "user_blocks",
    "rooms",
    "room_gates",
    "members",
    "chat_messages",
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
    let user = "insert into users (user_id, partner_id, nickname, user_code, created_at, updated_at, shard, state) \
        select 7, partner_id, 'n', 'AAAAAAAA', created_at, created_at,";
    let of_test = "from partners where name = 'test'";
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
        (
            "inbox",
            format!(
                "insert into inbox_items (shard, user_id, message_id, no, content, seq, arrived_at) \
                 select shard, 7, 5, 1, 0, 1, created_at {of_test}"
            ),
            format!("{}-1 in the inbox of user 7 without a delivery", Tsid(5)),
        ),
        (
            "heads",
            format!(
                "insert into user_heads (shard, user_id, seq) select shard, 7, 1 {of_test}; \
                 insert into stream_events (shard, stream_id, seq, event_id, event) \
                 select shard, 7, 2, 1, 'INBOX_SEEN' {of_test}"
            ),
            "has its head at 1, its last event at 2".into(),
        ),
        (
            "rooms",
            format!(
                "insert into rooms (shard, room_id, partner_id, kind, visibility, encrypted, created_by, created_at, \
                   updated_at) \
                 select shard, 9, partner_id, 'GROUP', 'PRIVATE', false, 7, created_at, created_at {of_test}; \
                 insert into room_gates (shard, room_id, last_id, most_members, is_individual) \
                 select shard, 9, 9, 500, false {of_test}; \
                 insert into members (shard, room_id, user_id, role, joined_at) \
                 select shard, 9, 7, 'OWNER', created_at {of_test}"
            ),
            format!("{}-0 the gate says 0 members, there are 1", Tsid(9)),
        ),
        ("users", format!("{user} shard + 1, 'ACTIVE' {of_test}"), format!("{}-0 user on shard ", Tsid(7))),
        ("users", format!("{user} shard, 'DELETED' {of_test}"), format!("{}-0 deleted user with a profile", Tsid(7))),
        (
            "users",
            format!(
                "insert into credentials (shard, user_id, password_hash, changed_at) \
                 select shard, 7, 'x', created_at {of_test}"
            ),
            format!("{}-0 password without a user who signs in", Tsid(7)),
        ),
        (
            "users",
            format!(
                "insert into devices (shard, device_id, user_id, partner_id, platform, token, token_hash, created_at) \
                 select shard, 1, 7, partner_id, 'FCM', 'x', 'x', created_at {of_test}"
            ),
            format!("{}-0 device without its user", Tsid(7)),
        ),
        (
            "users",
            format!(
                "insert into user_blocks (shard, user_id, blocked_id, at) select shard, 7, 8, created_at {of_test}"
            ),
            format!("{}-0 block of a user who is not there", Tsid(7)),
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

/// Faults A4: slices of a shard follow each other, hold about as many deliveries as asked, and cover every id. Findings
/// of all slices are counted though few are kept.
#[tokio::test]
async fn fsck_slices_cover_all_messages() {
    let app = App::new().await;
    let mut conn = app.hub.store.connect_for_fsck().await.unwrap();
    let shard = app.partner.shard;
    assert!(shards(&mut conn).await.unwrap().is_empty());
    assert_eq!(slices(&mut conn, Slice::all(shard), 500).await.unwrap(), [Slice::all(shard)]);
    // In weeks with partitions and in one without.
    for week in [0, 2, 40] {
        fill(&app, app.hub.clock.now() + TimeDelta::weeks(week), 1_000, 0).await;
    }
    assert_eq!(shards(&mut conn).await.unwrap(), [shard]);
    let parts = slices(&mut conn, Slice::all(shard), 500).await.unwrap();
    assert_eq!((parts[0].from, parts.last().unwrap().to), (Slice::all(shard).from, Slice::all(shard).to));
    assert!(parts.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].from < pair[0].to), "{parts:?}");
    raw_sql("update deliveries set event_seq = 7").execute(&app.db().await).await.unwrap();
    let mut rows = Vec::new();
    for part in &parts {
        rows.push(check_slice(&mut conn, "events", *part, app.hub.clock.now()).await.unwrap().rows);
    }
    // A mail and a webhook of each.
    assert_eq!(rows.iter().sum::<u64>(), 6_000);
    assert!(rows.iter().all(|rows| *rows <= 502), "{rows:?}");
    let (mut check, mut last) = (begin(&app, &mut conn, Coverage { slice: 500, ..Coverage::ALL }).await, None);
    while let Some(step) = check.step().await.unwrap() {
        assert!(last.is_none_or(|last: Step| last.slice + 1 == step.slice && last.of == step.of), "{last:?} {step:?}");
        last = Some(step);
    }
    let last = last.unwrap();
    // Then 3,000 keys.
    assert_eq!((last.slice, last.of, last.deliveries, last.position), (parts.len() + 6, last.slice, 6_000, None));
    let events = check.finish().await.unwrap().into_iter().find(|checked| checked.invariant == "events").unwrap();
    assert_eq!((events.violations.rows, events.violations.findings.len()), (6_000, limits::FSCK_FINDINGS));
    raw_sql("update deliveries set event_seq = 1").execute(&app.db().await).await.unwrap();
    raw_sql("delete from messages where message_id % 8192 = 0").execute(&app.db().await).await.unwrap();
    let keys: u64 = {
        let mut rows = 0;
        for slice in key_slices(&mut conn, shard, 700).await.unwrap() {
            rows += check_keys(&mut conn, &slice, Slice::all(shard)).await.unwrap().rows;
        }
        rows
    };
    assert_eq!(keys, 1_500, "keys of all slices");
    execute(&mut PgConnection::connect(&app.url).await.unwrap(), TRUNCATE).await;
    app.done().await;
}

async fn begin<'a>(app: &App, conn: &'a mut Conn, coverage: Coverage) -> Check<'a> {
    Check::begin(std::slice::from_mut(conn), coverage, app.hub.clock.now()).await.unwrap()
}

/// A check of a part finds what is broken there and nothing before; what needs all slices is skipped. Messages that are
/// accepted while a check runs are checked by it, in slices as large as others.
#[tokio::test]
async fn fsck_check_from_a_position_covers_the_rest() {
    let app = App::new().await;
    let now = app.hub.clock.now();
    fill(&app, now, 100, 0).await;
    let mut conn = app.hub.store.connect_for_fsck().await.unwrap();
    raw_sql("update deliveries set event_seq = 7").execute(&app.db().await).await.unwrap();
    let middle = Tsid(Tsid::floor(now).0 + 51 * 4096);
    let mut positions = Vec::new();
    let mut whole = begin(&app, &mut conn, Coverage { slice: 40, ..Coverage::ALL }).await;
    while let Some(step) = whole.step().await.unwrap() {
        positions.push(step.position.map_or("none".into(), |position| position.to_string()));
        if step.slice == 1 {
            // 300 deliveries in seven slices and one that is not full.
            fill(&app, now, 50, 100).await;
        }
    }
    assert_eq!(positions.len(), 8 + 3, "{positions:?}");
    assert_eq!(positions[7..], ["keys", "keys", "keys", "none"]);
    for position in positions.iter().filter(|position| *position != "none") {
        let from: Position = position.parse().unwrap();
        assert_eq!(from.to_string(), *position);
    }
    assert_eq!("0000000000000".parse(), Ok(Position::START));
    let mut part = begin(&app, &mut conn, Coverage { from: Position::Message(middle), keys: false, slice: 40 }).await;
    while part.step().await.unwrap().is_some() {}
    let checked = part.finish().await.unwrap();
    let skipped: Vec<&str> = checked.iter().filter(|c| c.skipped).map(|c| c.invariant).collect();
    assert_eq!(skipped, ["turn", "moving", "stats", "inbox", "heads", "rooms", "users"]);
    let events = checked.into_iter().find(|c| c.invariant == "events").unwrap().violations;
    assert_eq!(events.rows, 100, "50 messages from the middle on, and their webhooks");
    assert!(events.findings.iter().all(|finding| finding.message_id >= middle));
    execute(&mut PgConnection::connect(&app.url).await.unwrap(), TRUNCATE).await;
    app.done().await;
}

/// Keys of old messages are compared by marks: a missing key and one that leads nowhere are found all the same, each
/// once.
#[tokio::test]
async fn fsck_keys_of_old_messages_are_found() {
    let app = App::new().await;
    let then = app.hub.clock.now() - TimeDelta::days(3);
    fill(&app, then, 20, 0).await;
    fill(&app, then + TimeDelta::hours(5), 20, 0).await;
    assert_eq!(findings(&app).await, []);
    let id = |n: i64| Tsid::floor(then).0 + n * 4096;
    let text = |n: i64, found: &str| ("keys", format!("{}-0 {found}", Tsid(id(n))));
    let mut db = PgConnection::connect(&app.url).await.unwrap();
    execute(&mut db, &format!("delete from idempotency where message_id = {}", id(3))).await;
    assert_eq!(findings(&app).await, [text(3, "message without its key")]);
    // As many keys as messages, and as many of each stretch.
    let stray = format!("update idempotency set message_id = {} where message_id = {}", id(3) + 2, id(7));
    execute(
        &mut db,
        &format!(
            "insert into idempotency select shard, partner_id, 'k' || {0}, {0}, '' from idempotency \
         limit 1; {stray}",
            id(3)
        ),
    )
    .await;
    let mut found = findings(&app).await;
    found.sort();
    let stray = ("keys", format!("{}-0 key without its message", Tsid(id(3) + 2)));
    assert_eq!(found, [stray, text(7, "message without its key")]);
    execute(&mut db, TRUNCATE).await;
    app.done().await;
}

/// The program: a role that may only read is enough; a signal stops a check after the slice, with a position from which
/// the next one goes on; `--since` checks what was accepted since.
#[tokio::test]
async fn fsck_program_stops_and_goes_on() {
    let (app, folder) = (App::new().await, Folder::new());
    let then = Clock::system().now() - TimeDelta::hours(3);
    fill(&app, then, 20, 0).await;
    let mut db = PgConnection::connect(&app.url).await.unwrap();
    execute(&mut db, "update deliveries set event_seq = 7").await;
    let reader = format!("reader_{}", std::process::id());
    execute(&mut db, &format!("create role {reader} login password 'r'; grant pg_read_all_data to {reader}")).await;
    let mut url = url::Url::parse(&app.url).unwrap();
    url.set_username(&reader).unwrap();
    url.set_password(Some("r")).unwrap();
    let fsck = |args: &[&str]| on(&folder, url.as_str(), &[&["fsck", "--output=json"], args].concat());
    let rows = |told: &Value, name: &str| {
        let all = told["invariants"].as_array().unwrap();
        all.iter().find(|row| row["invariant"] == name).unwrap()["rows"].clone()
    };
    let whole = fsck(&[]).run().await.expect(1).json();
    assert_eq!(
        (rows(&whole, "events"), &whole["complete"], &whole["position"]),
        (40.into(), &true.into(), &Value::Null)
    );

    let slow = fsck(&["--rate=1", "--connections=1"]).start();
    until("the check runs", async || {
        let running = "select exists (select from pg_stat_activity where usename = $1 and query like '-- %')";
        sqlx::query_scalar::<_, bool>(running)
            .bind(&reader)
            .fetch_one(&mut *app.db().await.acquire().await.unwrap())
            .await
            .unwrap()
    })
    .await;
    slow.signal(Signal::SIGINT);
    let stopped = slow.ended().await.expect(130).json();
    assert_eq!(stopped["complete"], false, "{stopped}");
    let before = rows(&stopped, "events").as_u64().unwrap();
    let position = stopped["position"].as_str().unwrap();
    let rest = fsck(&["--resume", position]).run().await.expect(1).json();
    assert!((1..40).contains(&before), "{stopped}");
    assert_eq!(before + rows(&rest, "events").as_u64().unwrap(), 40, "each delivery is checked once");
    // The invariants of other tables are checked all the same: these messages are of a week without a partition.
    assert_eq!((rows(&rest, "stats"), rows(&rest, "nets")), (Value::Null, 80.into()));

    fill(&app, Clock::system().now() - TimeDelta::minutes(30), 10, 0).await;
    let lately = fsck(&["--since=2h"]).run().await.expect(1).json();
    assert_eq!((rows(&lately, "events"), rows(&lately, "moving")), (0.into(), Value::Null));
    assert_eq!(rows(&fsck(&["--since", &then.to_rfc3339()]).run().await.expect(1).json(), "events"), 40);
    for wrong in [&["--since=2"][..], &["--since=yesterday"], &["--resume=here"], &["--since=1h", "--resume=keys"]] {
        fsck(wrong).run().await.expect(2);
    }
    execute(&mut db, &format!("drop owned by {reader}; drop role {reader}")).await;
    execute(&mut db, TRUNCATE).await;
    app.done().await;
}

/// A watch prints what is broken once, and again only after it was sound; it forgets what was repaired.
#[tokio::test]
async fn fsck_watch_finds_what_is_new() {
    let app = App::new().await;
    let now = app.hub.clock.now();
    fill(&app, now - TimeDelta::hours(2), 10, 0).await;
    fill(&app, now, 10, 0).await;
    let (db, mut conn) = (app.db().await, app.hub.store.connect_for_fsck().await.unwrap());
    let mut watch = Watch::new(TimeDelta::hours(24));
    let change = async |seq: i16, n: i64, at: DateTime<Utc>| {
        let sql = "update deliveries set event_seq = $1 where message_id = $2";
        let id = Tsid::floor(at).0 + n * 4096;
        assert_eq!(sqlx::query(sql).bind(seq).bind(id).execute(&db).await.unwrap().rows_affected(), 1);
    };
    let mut round = async || {
        let found = watch.round(&mut conn, now, 1).await.unwrap();
        (found.iter().map(|f| f.found.clone()).collect::<Vec<_>>(), watch.broken().into_keys().collect::<Vec<_>>())
    };
    assert_eq!(round().await, (vec![], vec![]));
    change(7, 3, now).await;
    change(8, 4, now - TimeDelta::hours(2)).await;
    let (mut found, broken) = round().await;
    found.sort();
    let texts = ["event_seq 7, rows 1, highest 1", "event_seq 8, rows 1, highest 1"];
    assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>(), broken), (texts.to_vec(), vec!["events"]));
    assert_eq!(round().await, (vec![], vec!["events"]), "still broken, and not said again");
    change(1, 4, now - TimeDelta::hours(2)).await;
    assert_eq!(round().await, (vec![], vec!["events"]));
    change(1, 3, now).await;
    assert_eq!(round().await, (vec![], vec![]));
    execute(&mut PgConnection::connect(&app.url).await.unwrap(), TRUNCATE).await;
    app.done().await;
}

/// Empties what `fill` fills.
const TRUNCATE: &str = "truncate messages, deliveries, attempts, events, idempotency, receipts, stat_deltas";

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

/// Tables that grow with messages, and the conditions of an index scan that bound it to a slice.
const GROWING: [(&str, &[&str]); 7] = [
    ("messages_", &["(shard = ", "(message_id >= ", "(message_id < "]),
    ("deliveries_", &["(shard = ", "(message_id >= ", "(message_id < "]),
    ("attempts_", &["(shard = ", "(message_id >= ", "(message_id < "]),
    ("events_", &["(shard = ", "(message_id >= ", "(message_id < "]),
    ("idempotency", &["(shard = ", "ROW(partner_id, client_msg_id) > ", "ROW(partner_id, client_msg_id) <= "]),
    ("receipts", &["(shard = ", "(message_id >= ", "(message_id < "]),
    ("suspects", &["(shard = ", "(message_id >= ", "(message_id < "]),
];

/// Why a node of a plan is not bounded by its slice. `may_scan`: statements about the whole database.
fn unbounded(node: &Value, in_sub_plan: bool, may_scan: bool) -> Option<String> {
    let kind = node["Node Type"].as_str().unwrap();
    let in_sub_plan = in_sub_plan || node["Parent Relationship"] == "SubPlan";
    if kind.contains("Nested") || kind.contains("Memoize") || kind.contains("Gather") || kind.contains("Bitmap") {
        return Some(kind.to_owned());
    }
    if let Some(relation) = node["Relation Name"].as_str()
        && let Some((_, bounds)) = GROWING.iter().find(|(table, _)| relation.starts_with(table))
    {
        let condition = node["Index Cond"].as_str().unwrap_or_default();
        // A look-up by the whole primary key, row by row.
        let keyed = ["(shard = ", if relation == "idempotency" { "(client_msg_id = " } else { "(message_id = " }];
        // Webhooks are found by the message that they are about; other indexes of messages only filter by it.
        let about = ["(shard = ", "(about >= ", "(about < "];
        let is_bounded = |bounds: &[&str]| bounds.iter().all(|bound| condition.contains(bound));
        let by_primary_key = node["Index Name"]
            .as_str()
            .is_some_and(|index| !index.contains("partner_id") || relation == "idempotency" || relation == "receipts");
        let fine = match in_sub_plan {
            true => is_bounded(&keyed) && (by_primary_key || condition.contains("(partner_id = ")),
            false => {
                let by_ids = is_bounded(&["(shard = ANY ", "(message_id = ANY "]);
                may_scan || ((is_bounded(bounds) || by_ids) && by_primary_key) || is_bounded(&about)
            }
        };
        if !fine {
            return Some(format!("{kind} of {relation} by {}: {condition}", node["Index Name"]));
        }
    }
    let mut below = node["Plans"].as_array().into_iter().flatten();
    below.find_map(|child| unbounded(child, in_sub_plan, may_scan))
}

/// Faults A4: under any statistics the statements of a slice read its rows along primary keys, join them by hash or
/// merge, and run each node once, whatever else the tables hold. Statements about the whole database read tables once.
/// Keys are looked up one by one, by their primary key.
#[tokio::test]
async fn fsck_statements_under_any_statistics_are_bounded_by_their_slice() {
    const ROWS: i64 = 10_000;
    const SLICE: i64 = 1_000;
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
    let (shard, partner) = (app.partner.shard, app.partner.partner_id.0);
    let from = Tsid::floor(now).0 + 4096 * 2_000;
    let slice = format!("{shard}, {from}, {}", from + 4096 * SLICE);
    let keys = format!("{shard}, {partner}, 'k{from}', {partner}, 'k{}'", from + 4096 * SLICE);
    let mut conn = app.hub.store.connect_for_fsck().await.unwrap();
    let mut objections = Vec::new();
    for statistics in ["of empty tables", "while an insert was not committed", "of full tables, vacuumed", "none"] {
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
            "of full tables, vacuumed" => execute(&mut db, "vacuum (analyze)").await,
            "none" => {
                let none = "delete from pg_statistic; update pg_class set reltuples = -1, relpages = 0 \
                            where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace";
                execute(&mut db, none).await;
            }
            _ => (),
        }
        let folder = |noun: &str| std::fs::read_dir(format!("{}/sql/{noun}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for file in folder("fsck").chain(folder("ledger")) {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let (args, may_scan) = match name.as_str() {
                "stuck" | "evidence" => (format!("{slice}, '{now}'"), false),
                "tried" => (format!("{slice}, '{{never_begun}}'"), false),
                "key_marks" => (format!("{keys}, {}, 44", i64::MAX), false),
                "keys_back" => (format!("{keys}, {}, {}", i64::MIN, i64::MAX), false),
                "message_marks" => (format!("{slice}, 44"), false),
                "balance" => (format!("{slice}, '{{66,67}}'"), false),
                "look_up" => (format!("'{{{shard}}}', '{{{from},{}}}', '{{66,67}}'", from + 4096), false),
                "settled" => (format!("'{{{partner}}}', '2027-03-05', 'WEBHOOK', {types}"), true),
                "day_start" => ("'2027-03-05', 'Asia/Seoul'".into(), true),
                "next_shard" => ("-1".into(), true),
                "next_cut" => (format!("{shard}, {from}, {SLICE}"), true),
                "next_key" => (format!("{shard}, {partner}, 'k', {SLICE}"), true),
                "stats" => (format!("{types}, '{{{partner}}}'"), true),
                "counted" => (types.clone(), true),
                "unapplied" => (format!("'{now}'"), true),
                "turn" => (format!("'{{{shard}}}', '{{2}}', '{{{now}}}'"), true),
                "moving" => (format!("'{now}', {types}, '{{}}', '{{EMAIL}}', '{{smtp}}'"), true),
                "nets" | "relayed" | "oldest_pending" | "inbox" => (String::new(), true),
                "heads" => (format!("'{now}', 0, 'ITEM_MOVED'"), true),
                _ => (slice.clone(), false),
            };
            let text = std::fs::read_to_string(&path).unwrap();
            let plan = explain(&mut conn, &text, "costs off", &args).await;
            if let Some(objection) = unbounded(&plan, false, may_scan) {
                objections.push(format!("{name}, statistics {statistics}: {objection}"));
                continue;
            }
            // The plan is checked, so it is safe to run.
            let plan = explain(&mut conn, &text, "analyze, costs off, timing off", &args).await;
            let keyed = ["keys", "keys_back"].contains(&name.as_str());
            let most = if keyed { 2 * SLICE } else { 1 };
            let loops: Vec<i64> = nodes(&plan, "Actual Loops").iter().map(|n| n.parse().unwrap()).collect();
            assert!(loops.iter().all(|n| *n <= most), "{name}, statistics {statistics}: {plan:#}");
            for (property, most) in [
                ("Rows Removed by Join Filter", if may_scan { 2 * ROWS } else { 2 * SLICE }),
                ("Rows Removed by Filter", if may_scan { 4 * ROWS } else { 2 * SLICE }),
                ("Peak Memory Usage", 16 << 10),
            ] {
                for n in nodes(&plan, property) {
                    assert!(n.parse::<i64>().unwrap() <= most, "{name}, statistics {statistics}: {property}: {plan:#}");
                }
            }
            // These read as far as the next cut, or one row of each table.
            let rows: i64 = nodes(&plan, "Actual Rows").iter().map(|n| n.parse::<i64>().unwrap()).max().unwrap();
            let most = if name.starts_with("next_") || !may_scan { 4 * SLICE + 2 } else { 4 * ROWS };
            assert!(rows <= most, "{name}, statistics {statistics}: {rows} rows: {plan:#}");
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
    execute(&mut db, TRUNCATE).await;
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
