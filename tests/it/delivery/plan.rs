//! Plans: hot statements go by their indexes whatever the statistics say.

use chrono::{DateTime, TimeDelta, Utc};
use notihub::id::Tsid;
use notihub::model::delivery::READY_WHEN_PREDECESSOR_ENDS;
use notihub::model::lane::Lane;
use notihub::store;
use serde_json::json;

use crate::support::app::{App, emails, slack_posts, start_time};
use crate::support::hubs::{grab, lose};
use crate::support::sql::{STATISTICS, explain, indexes, make_statistics};

/// Messages of a week. Of fewer, a planner that believes the tables empty reads a week by its primary key.
const WEEK: i64 = 84_000;
/// Weeks that have messages.
const WEEKS: i64 = 6;

/// Fills the tables as they are after months: fifteen weeks of partitions, the first of them with
/// deliveries that are settled.
async fn months(app: &App) -> sqlx::PgPool {
    let (hub, db) = (&app.hub, app.db().await);
    for week in 0..10 {
        let then = hub.clock.now() + TimeDelta::weeks(week);
        store::partition::maintain(&hub.store, then, DateTime::UNIX_EPOCH).await.unwrap();
    }
    let (partner, shard) = (app.partner.partner_id.0, app.partner.shard);
    for week in 0..WEEKS {
        let at: DateTime<Utc> = hub.clock.now() + TimeDelta::weeks(week);
        let first = Tsid::floor(at).0;
        let fill = format!(
            "with n as (
               select {first} + n * 4096 as id, timestamptz '{at}' as at from generate_series(1, {WEEK}) as n),
             m as (insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at)
               select {shard}, id, {partner}, 'T', 'NORMAL', '{{\"contents\": [{{\"body\": \"b\"}}]}}', at from n),
             d as (insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, event_seq, \
                 status,
                 partner_id, ready_at, settled_at, recipient, provider)
               select {shard}, id, 1, 2, 1, 3, 0, 1, 'SENT', {partner}, at, at, 'a@example.com', 'smtp' from n),
             a as (insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, ended_at)
               select {shard}, id, 1, 1, 'ACCEPTED', 1, at, at from n),
             c as (insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
               values ({partner}, timestamptz '{at}', 2, {WEEK}, {WEEK}, 0))
             insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
               select {shard}, id, 1, 1, 1, 'delivery.sent', at from n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&db).await.unwrap();
    }
    db
}

/// The hot statements keep their plans whatever the statistics say: of empty tables, of full ones, or none at all. Each
/// goes by the index that was made for it, in every partition, and touches as much as it brings, not as much as there
/// is.
#[tokio::test]
async fn hot_statements_go_by_their_indexes_whatever_the_statistics_say() {
    let app = App::new().await;
    let hub = &app.hub;
    let shard = app.partner.shard;
    sqlx::raw_sql("analyze").execute(&app.db().await).await.unwrap();
    let db = months(&app).await;
    let indexes = indexes(&db).await;
    assert!(app.count("select count(*) from pg_inherits where inhparent = 'deliveries'::regclass").await > 14);
    assert!(app.count("select count(*) from deliveries").await >= WEEKS * WEEK);

    // Of each kind two hundred that are live: waiting, held with a lease that is over, held, and due.
    app.accept_all(emails(200)).await;
    grab(hub, 200).await;
    sqlx::query("update deliveries set lease_until = clock_timestamp() - interval '1 s' where status = 'PROCESSING'")
        .execute(&db)
        .await
        .unwrap();
    let mut scheduled = slack_posts(200);
    scheduled.iter_mut().for_each(|b| b["scheduledAt"] = json!((start_time() + TimeDelta::seconds(5)).to_rfc3339()));
    app.accept_all(scheduled).await;
    app.accept_all(slack_posts(200)).await;
    let held: Vec<(i64, i16)> =
        sqlx::query_as("select message_id, attempt from deliveries where status = 'PROCESSING' order by 1")
            .fetch_all(&db)
            .await
            .unwrap();
    let ids = held.iter().map(|row| row.0.to_string()).collect::<Vec<_>>();
    let (low, high) = (&ids[0], &ids[ids.len() - 1]);
    let many = |value: &str| format!("array_fill({value}, array[{}])", ids.len());
    let keys =
        format!("{}, array[{}]::bigint[], {}", many(&format!("{shard}::smallint")), ids.join(","), many("1::smallint"));
    let none = many("null::text");
    let now = format!("timestamptz '{}'", hub.clock.now());

    let lanes = Lane::all_of(&hub.providers.channels()).iter().map(|l| l.0.to_string()).collect::<Vec<_>>();
    let each = |value: &str| format!("array_fill({value}, array[{}])", lanes.len());
    let claim = format!(
        "{}, array[{}]::smallint[], {}, {}, 100, 1, 30, {}",
        each(&format!("{shard}::smallint")),
        lanes.join(","),
        each("timestamptz '1970-01-01'"),
        each("100::bigint"),
        each("false"),
    );
    let settle = format!(
        "{keys}, {}, {}, {}, {}, {}, {}, {}, {none}, {}, {}, {}, {}, {}, {none}, {none}, {none}, {}, {}, {}, {}, \
            array[{}]::bigint[], {}, {now}, {low}, {high}, 10::smallint",
        many("1::smallint"),
        many("'PROCESSING'::text"),
        many("'SENT'::text"),
        many("null::timestamptz"),
        many("false"),
        many("false"),
        many("'delivery.sent'::text"),
        many("'smtp'::text"),
        many("'ACCEPTED'::text"),
        many("1::bigint"),
        many(&now),
        many(&now),
        many("false"),
        many("1::smallint"),
        many("1::smallint"),
        many("0::smallint"),
        ids.join(","),
        many("null::timestamptz"),
    );
    let settle_sends = format!(
        "{keys}, {}, {}, {}, {}, {}, {none}, {now}, {low}, {high}, 'PROCESSING'",
        many("1::smallint"),
        many("'smtp'::text"),
        many("1::bigint"),
        many(&now),
        many(&now),
    );
    // What an endpoint got, of which little waits for another try.
    let to_endpoint = format!(
        "insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, status, partner_id, \
            ready_at,
           settled_at, recipient)
         select {shard}, {} + n, 1, 68, 1, 10, 0, (case when n % 100 = 0 then 'SCHEDULED' else 'SENT' \
             end)::delivery_status,
           {}, {now} + interval '1 h', case when n % 100 <> 0 then {now} end, 'endpoint' from generate_series(1, \
               20000) as n",
        Tsid::floor(hub.clock.now() + TimeDelta::hours(1)).0,
        app.partner.partner_id.0,
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(to_endpoint)).execute(&db).await.unwrap();
    let along = format!("{shard}::smallint, 'endpoint', {}, 0, {}, 1000", Tsid::floor(start_time()).0, i64::MAX);
    let (hasten, waiting) = (format!("{along}, 100, {now}, 'infinity'"), format!("{along}, {now}, 'infinity'"));

    let overdue = format!("array[{shard}]::smallint[], '1970-01-01', 100");
    let promote = format!("array[{shard}]::smallint[], '1970-01-01', {now} + interval '5 s', 100");
    let contents =
        format!("{}, array[{}]::bigint[], {low}, {high}", many(&format!("{shard}::smallint")), ids.join(","));
    let begin = format!(
        "{keys}, {}, 1, {now}, {now}, {}, {low}, {high}, 'PROCESSING', 15",
        many("1::smallint"),
        many("'x'::text")
    );
    let evidence =
        format!("{keys}, {now}, '{{SCHEDULED,PENDING,UNDETERMINED}}', '{{1,1,0}}', '{{1,1,1}}', '{{0,0,0}}'");

    // Keys of half of all messages, the other half's erased.
    let keys_taken =
        "with even as (select shard, partner_id, message_id from messages where (message_id / 4096) % 2 = 0)
         insert into idempotency (shard, partner_id, client_msg_id, message_id, fingerprint)
         select shard, partner_id, 'key' || message_id, message_id, '\\x00' from even;
         insert into erased_keys (partner_id, key_hash, message_id, fingerprint)
         select partner_id, sha256(message_id::text::bytea), message_id, '\\x00' from messages
         where (message_id / 4096) % 2 = 1";
    sqlx::raw_sql(keys_taken).execute(&db).await.unwrap();
    let first: i64 =
        sqlx::query_scalar("select min(message_id) from messages where kind = 'T'").fetch_one(&db).await.unwrap();
    let of = |n: i64| first + n * 4096;
    let (texts, hashes): (Vec<_>, Vec<_>) =
        (0..200).map(|n| (format!("'key{}'", of(n)), format!("sha256('{}'::bytea)", of(n)))).unzip();
    let find = format!(
        "{}, {}, array[{}]::text[], array[{}]::bytea[]",
        many(&format!("{shard}::smallint")),
        many(&format!("{}::bigint", app.partner.partner_id.0)),
        texts.join(","),
        hashes.join(","),
    );

    // Receipts that were applied, and two hundred that wait; endpoints of other partners; days of statistics; settled
    // deliveries whose receipt is late; and waiting ones with a fallback.
    let others = format!(
        "insert into receipts (provider, event_key, received_at, provider_ref, outcome, try_at, applied_at)
         select 'vendor', n::text, {now}, n::text, 'DELIVERED', {now}, case when n > 200 then {now} end
         from generate_series(1, 20000) as n;
         insert into provider_refs (provider, provider_ref, shard, message_id, no, attempt)
         select 'vendor', n::text, {shard}, {first} + n * 4096, 1, 1 from generate_series(1, 20000) as n;
         insert into endpoints (shard, partner_id, endpoint_id, recipient, url, secret, created_at, updated_at)
         select {shard}, n, n, n::text, 'https://example.com/', '\\x00', {now}, {now}
         from generate_series(1, 2000) as n;
         insert into partner_daily_stats (partner_id, stat_date, message_type, total, success, failed)
         select p, date '2026-01-01' + d, 'EMAIL', 1, 1, 0
         from generate_series(1, 100) as p, generate_series(1, 300) as d;
         insert into partner_daily_stats (partner_id, stat_date, message_type, total, success, failed)
         select {partner}, date '2026-01-01' + d, 'SMS', 1, 1, 0 from generate_series(1, 300) as d;
         delete from attempts where message_id between {first} + 2000 * 4096 and {first} + 2199 * 4096;
         delete from events where message_id between {first} + 2000 * 4096 and {first} + 2199 * 4096;
         update deliveries set sent_worker = 1, sent_claimed_at = settled_at, sent_called_at = settled_at
         where message_id between {first} + 2000 * 4096 and {first} + 2199 * 4096;
         update deliveries set receipt_due = {now}
         where message_id between {first} + 1000 * 4096 and {first} + 1199 * 4096 and status = 'SENT';
         update deliveries set has_fallback = true where status = 'PENDING'",
        partner = app.partner.partner_id.0,
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(others)).execute(&db).await.unwrap();
    let list = |values: Vec<String>| format!("array[{}]", values.join(","));
    let shards = many(&format!("{shard}::smallint"));
    let new = Tsid::floor(hub.clock.now() + TimeDelta::hours(2)).0;
    let new_ids = list((0..200).map(|n| (new + n * 4096).to_string()).collect());
    // The parameters that both statements of intake begin with.
    let insert_columns = |partner: &str| {
        [
            shards.clone(),
            new_ids.clone(),
            many(partner),
            format!("{}::text[]", list((0..200).map(|n| format!("'new{n}'")).collect())),
            many("'\\x00'::bytea"),
            many("'T'::text"),
            many("'NORMAL'::text"),
            many("'{\"contents\": []}'::text"),
            many(&now),
            many("null::timestamptz"),
            many("null::timestamptz"),
            list((1..=200).map(|n| format!("{n}::bigint")).collect()),
            many("1::smallint"),
            many("2::smallint"),
            many("0::smallint"),
            many("3::smallint"),
            many("'a@example.com'::text"),
            now.clone(),
            none.clone(),
        ]
        .join(", ")
    };
    let no_fallback = many("false");
    let insert = format!(
        "{}, {}, {}, 10, {no_fallback}, {}",
        insert_columns(&format!("{}::bigint", app.partner.partner_id.0)),
        many("null::bigint"),
        many("1::smallint"),
        list((0..200).map(|n| format!("sha256('new{n}'::bytea)")).collect()),
    );
    // Of a partner without endpoints, while other partners have some.
    let insert_plain = format!("{}, {no_fallback}", insert_columns("3000::bigint"));
    let publish = format!(
        "{shards}, {new_ids}, {partners}, {}, {}, {}, {}, {}, {}, {now}, 10",
        many("'delivery.sent'::text"),
        many("'NORMAL'::text"),
        many("68::smallint"),
        many("'{\"contents\": []}'::text"),
        many(low),
        many("null::bigint"),
        partners = list((1..=200).map(|n| format!("{n}::bigint")).collect()),
    );
    let settled = list((0..200).map(|n| format!("{}::bigint", of(n))).collect());
    let settled = format!("{shards}, {settled}, {}", many("1::smallint"));
    let heads = format!("{settled}, {}, {}", of(0), of(199));
    let in_rows = list((2000..2200).map(|n| format!("{}::bigint", of(n))).collect());
    let in_rows = format!("{shards}, {in_rows}, {}, {}, {}", many("1::smallint"), of(2000), of(2199));
    let apply_receipts = format!(
        "{settled}, {}, {}, {none}, {}, {}, {}, {zeros}, {zeros}, {zeros}, {now}",
        many("'DELIVERED'::text"),
        many("'delivery.delivered'::text"),
        many("1::smallint"),
        many("'smtp'::text"),
        many("null::timestamptz"),
        zeros = many("0::smallint"),
    );
    let due = format!("array[{shard}]::smallint[], {now} + interval '1 s', 100, '{{}}'");
    let standing_by = format!(
        "{}, array[{}]::smallint[], {}, {}, {}, 100",
        each(&format!("{shard}::smallint")),
        lanes.join(","),
        each("timestamptz '1970-01-01'"),
        each("0::bigint"),
        each("0::smallint"),
    );
    let take = format!("{now} + interval '1 s', 100, '1970-01-01'");
    let of_partner = format!("array[{}]::bigint[], array[{shard}]::smallint[]", app.partner.partner_id.0);
    let messages = format!("{of_partner}, {max}, 0, null, null, null, null, null, 50, null, null", max = i64::MAX);
    let deliveries =
        format!("{of_partner}, {max}, 0, {max}, 0, null, null, null, null, null, null, 50, null, null", max = i64::MAX);
    let daily = format!("{}, 'Asia/Seoul', '2026-03-01', '2026-03-31', null, '{{EMAIL}}'", app.partner.partner_id.0);

    let mut conn = hub.store.engine().acquire().await.unwrap();
    let mut intake = hub.store.intake().acquire().await.unwrap();
    for statistics in STATISTICS {
        make_statistics(&db, statistics).await;
        println!("statistics: {statistics}");
        let plan = explain(&mut intake, "idempotency/find_holders", &find).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(
            &indexes,
            &["uk_message_partner_client_msg", "pk_erased_keys", "pk_messages", "idx_message_partner_id"],
            200 * 20,
        );
        let plan = explain(&mut conn, "delivery/claim", &claim).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 100);
        plan.reads_only(&indexes, &["idx_delivery_claim", "pk_deliveries"], 100 * 40);
        let plan = explain(&mut conn, "delivery/settle", &settle).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_deliveries", "pk_attempts", "idx_endpoint_hears"], 200 * 40);
        let plan = explain(&mut conn, "delivery/settle_sends", &settle_sends).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_deliveries", "idx_endpoint_hears"], 200 * 40);
        let plan = explain(&mut conn, "delivery/lock_expired_leases", &overdue).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 100);
        plan.reads_only(&indexes, &["idx_delivery_reap", "pk_attempts", "pk_suspects"], 100 * 40);
        let plan = explain(&mut conn, "delivery/promote", &promote).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 100);
        plan.reads_only(&indexes, &["idx_delivery_promote", "pk_deliveries"], 100 * 40);
        let plan = explain(&mut conn, "message/contents", &contents).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_messages"], 200 * 10);
        let plan = explain(&mut conn, "attempt/record_begin", &begin).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        plan.reads_only(&indexes, &["pk_deliveries"], 200 * 40);
        let plan = explain(&mut conn, "delivery/lock", &keys).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 200);
        plan.reads_only(&indexes, &["pk_deliveries"], 200 * 40);
        let plan = explain(&mut conn, "delivery/apply_late_acceptances", &evidence).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        plan.reads_only(&indexes, &["pk_deliveries", "pk_attempts", "idx_endpoint_hears"], 200 * 40);
        let plan = explain(&mut conn, "delivery/retry_now", &hasten).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        assert_eq!(plan.rows, 10);
        plan.reads_only(&indexes, &["idx_delivery_endpoint", "pk_deliveries"], 1_000 * 2);
        let plan = explain(&mut conn, "delivery/count_retrying", &waiting).await;
        println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
        // Of a partition that it believes to be empty it takes whichever.
        plan.reads_only(&indexes, &["idx_delivery_endpoint", "pk_deliveries"], 1_000 * 2);
        for (name, args, rows, allowed, small, buffers) in [
            // Of endpoints those of a shard may be read.
            (
                "message/insert",
                &insert,
                200,
                &["pk_erased_keys", "idx_endpoint_hears", "pk_endpoints"][..],
                &["endpoints", "idx_endpoint_hears", "pk_endpoints"][..],
                200 * 60,
            ),
            (
                "message/insert_plain",
                &insert_plain,
                200,
                &["pk_erased_keys", "idx_endpoint_hears", "pk_endpoints"],
                &["endpoints", "idx_endpoint_hears", "pk_endpoints"],
                200 * 60,
            ),
            (
                "message/publish",
                &publish,
                200,
                &["idx_endpoint_hears", "pk_endpoints"],
                &["endpoints", "idx_endpoint_hears", "pk_endpoints"],
                200 * 60,
            ),
            ("delivery/lock_for_receipts", &heads, 200, &["pk_deliveries"], &[], 200 * 20),
            ("delivery/move_send_records", &in_rows, 0, &["pk_deliveries"], &[], 200 * 60),
            ("delivery/apply_receipts", &apply_receipts, 200, &["pk_deliveries"], &[], 200 * 60),
            (
                "delivery/lock_receipt_overdue",
                &due,
                100,
                &["idx_delivery_receipt_due", "idx_receipt_message", "pk_provider_cursors"],
                &[],
                100 * 40,
            ),
            ("delivery/lock_pending_with_fallback", &standing_by, 100, &["idx_delivery_fallback"], &[], 100 * 40),
            ("receipt/lock_pending", &take, 100, &["idx_receipt_waiting", "pk_provider_refs"], &[], 100 * 20),
            (
                "message/list",
                &messages,
                50,
                &["idx_message_partner_id", "pk_deliveries", "uk_message_partner_client_msg"],
                &[],
                50 * 40,
            ),
            ("delivery/list", &deliveries, 50, &["idx_message_partner_id", "pk_deliveries"], &[], 50 * 40),
            (
                "stats/daily",
                &daily,
                31,
                &["uk_stat_partner_date_type", "idx_stat_partner_id"],
                // Rolled up every few seconds, so it is small; it has no index, to keep its inserts cheap.
                &["stat_deltas"],
                1_000,
            ),
        ] {
            let plan = explain(&mut conn, name, args).await;
            println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
            assert_eq!(plan.rows, rows, "{name}");
            plan.finds_by(&indexes, allowed, small, buffers);
        }
    }
    drop((conn, intake));
    sqlx::raw_sql(
        "delete from erased_keys; delete from idempotency where client_msg_id like 'key%'; \
         delete from deliveries where recipient = 'endpoint'; delete from receipts; delete from provider_refs; \
         delete from endpoints; delete from partner_daily_stats; \
         update deliveries set receipt_due = null where receipt_due is not null; \
         update deliveries set has_fallback = false where has_fallback",
    )
    .execute(&db)
    .await
    .unwrap();
    app.advance(10);
    lose(&app).await;
    app.settle_all().await;
    app.done().await;
}

/// Fault A2: the order of webhooks is found at the same cost after a history of fifty thousand webhooks of the
/// endpoint, beside as many recipients, whatever the statistics say.
#[tokio::test]
async fn webhook_order_is_read_from_open_webhooks_whatever_the_history() {
    let app = App::new().await;
    let (hub, db) = (&app.hub, app.db().await);
    let (partner, shard) = (app.partner.partner_id.0, app.partner.shard);
    sqlx::raw_sql("analyze").execute(&db).await.unwrap();
    for week in 0..10 {
        let then = hub.clock.now() + TimeDelta::weeks(week);
        store::partition::maintain(&hub.store, then, DateTime::UNIX_EPOCH).await.unwrap();
    }
    let now = format!("timestamptz '{}'", hub.clock.now());
    // Events of messages, three each: settled ones of the endpoint and of as many others, in four weeks; then open
    // ones.
    let events = |from: Tsid, messages: i64, recipient: &str, status: &str, ready_at: &str| {
        format!(
            "insert into deliveries (shard, message_id, no, lane, attempt, max_attempts, content, status, partner_id, \
                ready_at,
               settled_at, recipient, about, told_at)
             select {shard}, {from} + m * 40960 + e * 4096, 1, 68, 1, 10, 0, ({status})::delivery_status, {partner}, \
                 {ready_at},
               {now}, {recipient}, {from} + m * 40960, {now} + e * interval '1 ms'
             from generate_series(1, {messages}) as m, generate_series(1, 3) as e",
            from = from.0
        )
    };
    let week = |n| Tsid::floor(hub.clock.now() + TimeDelta::weeks(n));
    for n in 0..4 {
        let settled = events(week(n), 4_200, "'endpoint'", "'SENT'", &now);
        sqlx::raw_sql(sqlx::AssertSqlSafe(settled)).execute(&db).await.unwrap();
        let others = events(Tsid(week(n).0 + 2048), 4_200, "'endpoint' || m", "'SENT'", &now);
        sqlx::raw_sql(sqlx::AssertSqlSafe(others)).execute(&db).await.unwrap();
    }
    let behind = format!("timestamptz '{READY_WHEN_PREDECESSOR_ENDS}'");
    let open = events(
        week(4),
        300,
        "'endpoint'",
        "case e when 1 then 'SENT' else 'SCHEDULED' end",
        &format!("case e when 1 then {now} else {behind} end"),
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(open)).execute(&db).await.unwrap();
    let old = events(week(5), 30, "'endpoint'", "'SCHEDULED'", &behind);
    sqlx::raw_sql(sqlx::AssertSqlSafe(old)).execute(&db).await.unwrap();
    let old = format!(
        "update deliveries set about = null, told_at = null, settled_at = null where message_id > {}",
        week(5).0
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(old)).execute(&db).await.unwrap();
    let indexes = indexes(&db).await;

    let many = |value: &str| format!("array_fill({value}, array[200])");
    let ids =
        |of: i64| (1..=200).map(|m| (week(4).0 + m * 40_960 + of * 4_096).to_string()).collect::<Vec<_>>().join(",");
    let (abouts, first) = (ids(0), ids(1));
    let (shards, day) = (many(&format!("{shard}::smallint")), Tsid::span(TimeDelta::days(1)));
    let last = week(4).0 + 200 * 40_960 + 3 * 4_096;
    let sequences = format!(
        "{shards}, array[{abouts}]::bigint[], {}, {}, {day}, {last}",
        many("'endpoint'::text"),
        many("2::bigint")
    );
    let release_next = format!(
        "{shards}, array[{first}]::bigint[], {}, {}, {behind}, {now}, {}, {last}, 'SCHEDULED', {day}",
        many("1::smallint"),
        many("1::bigint"),
        week(4).0,
    );
    let stalled = format!("{shard}::smallint, 0, 100, {behind}");
    let fill = format!("array[{shard}]::smallint[], 50");
    let release = format!("{shard}::smallint, 'endpoint', {behind}, {now}, 100");

    let mut conn = hub.store.webhooks().acquire().await.unwrap();
    for statistics in STATISTICS {
        make_statistics(&db, statistics).await;
        println!("statistics: {statistics}");
        for (name, args, rows, reads, buffers) in [
            ("delivery/sequences", &sequences, 400, ["idx_delivery_sequence", ""], 200 * 20),
            ("delivery/release_next", &release_next, 200, ["idx_delivery_sequence", "pk_deliveries"], 200 * 60),
            ("delivery/stalled", &stalled, 50, ["idx_delivery_sequence", ""], 100 * 5),
            ("delivery/backfill_about", &fill, 0, ["idx_delivery_sequence", "pk_deliveries"], 50 * 60),
            ("delivery/release", &release, 100, ["idx_delivery_promote", "pk_deliveries"], 100 * 60),
        ] {
            let plan = explain(&mut conn, name, args).await;
            println!("{}: {} rows, {} blocks", plan.name, plan.rows, plan.buffers);
            let plan_rows = plan.rows;
            assert!(plan_rows >= rows, "{name}: {plan_rows} rows of {rows}");
            plan.reads_only(&indexes, &[reads[0], reads[1], "pk_messages"], buffers);
        }
    }
    drop(conn);
    sqlx::raw_sql("delete from deliveries").execute(&db).await.unwrap();
    app.done().await;
}

/// While an old snapshot keeps vacuum from removing the dead rows of a small queue table, it is read from its tail: a
/// batch touches as much as it brings, however many were taken before.
#[tokio::test]
async fn small_tables_under_an_old_snapshot_are_read_from_their_tail() {
    let app = App::new().await;
    let mut reader = app.db().await.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select count(*) from messages")
        .execute(&mut *reader)
        .await
        .unwrap();
    let now = format!("timestamptz '{}'", app.hub.clock.now());
    let rows = |from: i64, to: i64| {
        format!(
            "insert into endings (shard, message_id, partner_id) select 0, n, 1 from generate_series({from}, {to}) n;
             insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
               select 1, {now}, 2, 0, 0, 0 from generate_series({from}, {to}) n;
             insert into receipts (provider, event_key, received_at, outcome, try_at)
               select 'vendor', n::text, {now}, 'DELIVERED', {now} + n * interval '1 ms'
               from generate_series({from}, {to}) n;"
        )
    };
    let taken = "delete from endings; delete from stat_deltas; update receipts set applied_at = received_at;";
    let fill = format!("{} {taken} {}", rows(1, 20_000), rows(20_001, 20_100));
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&app.db().await).await.unwrap();

    let mut conn = app.hub.store.engine().acquire().await.unwrap();
    for (name, args, tail) in [
        ("event/take_ending_marks", "100".to_owned(), "100".to_owned()),
        ("stats/roll_up", "100, '{EMAIL}'".to_owned(), "120".to_owned()),
        ("receipt/lock_pending", format!("{now} + interval '1 h', 100"), format!("{now} + interval '19 s'")),
    ] {
        let beginning = if name == "receipt/lock_pending" { "'1970-01-01'" } else { "0" };
        let all = explain(&mut conn, name, &format!("{args}, {beginning}")).await;
        let plan = explain(&mut conn, name, &format!("{args}, {tail}")).await;
        println!("{name}: {} blocks, {} from the beginning", plan.buffers, all.buffers);
        assert_eq!((plan.rows, all.rows), if name == "stats/roll_up" { (1, 1) } else { (100, 100) }, "{name}");
        let reads: Vec<&str> = plan.nodes.iter().map(|n| n.kind.as_str()).filter(|kind| kind.contains("Seq")).collect();
        assert!(reads.is_empty(), "{name} reads a whole table: {:#?}", plan.nodes);
        assert!(plan.buffers < 100 * 8, "{name} touched {} blocks: {:#?}", plan.buffers, plan.nodes);
        assert!(all.buffers > plan.buffers, "{name} touched {} blocks from the beginning", all.buffers);
    }
    drop(conn);
    reader.rollback().await.unwrap();
    sqlx::raw_sql("delete from endings; delete from stat_deltas; delete from receipts")
        .execute(&app.db().await)
        .await
        .unwrap();
    app.done().await;
}
