//! Plans: statements of users and inboxes touch what they bring, whatever there is and whatever the statistics say.

use chrono::{DateTime, TimeDelta, Utc};
use notihub::id::Tsid;
use notihub::store;

use crate::support::app::App;
use crate::support::sql::{STATISTICS, explain, indexes, make_statistics};

/// Weeks that have items, items that one user has in each, and users who have one in each.
const WEEKS: i64 = 5;
const ITEMS: i64 = 20_000;
const USERS: i64 = 2_000;
/// What a batch brings.
const BATCH: i64 = 200;

/// Fills the tables as they are after months: user 1 has a hundred thousand items, read but for the newest ones; users
/// 2 to 2,001 have one unread item a week, and a change of it.
async fn fill(app: &App) -> sqlx::PgPool {
    let (hub, db) = (&app.hub, app.db().await);
    let (shard, partner) = (app.partner.shard, app.partner.partner_id.0);
    for week in 0..10 {
        let then = hub.clock.now() + TimeDelta::weeks(week);
        store::partition::maintain(&hub.store, then, DateTime::UNIX_EPOCH).await.unwrap();
    }
    let now = hub.clock.now();
    for week in 0..WEEKS {
        let at: DateTime<Utc> = now + TimeDelta::weeks(week);
        let first = Tsid::floor(at).0;
        let weekly = format!(
            "insert into inbox_items (shard, user_id, message_id, no, content, seq, arrived_at, read_at)
               select {shard}, 1, {first} + n * 4096, 2, 0, {week} * {ITEMS} + n, timestamptz '{at}',
                 case when {week} < {WEEKS} - 1 or n <= {ITEMS} - 300 then timestamptz '{at}' end
               from generate_series(1, {ITEMS}) as n;
             insert into inbox_items (shard, user_id, message_id, no, content, seq, arrived_at, snoozed_until)
               select {shard}, 1 + n, {first} + n * 4096, 1, 0, 2 * {week} + 1, timestamptz '{at}',
                 case when n <= {BATCH} and {week} = 0 then timestamptz '{now}' end
               from generate_series(1, {USERS}) as n;
             insert into stream_events (shard, stream_id, seq, event_id, event, about, about_no)
               select {shard}, 1 + n, 2 * {week} + 2, {first} + n * 4096, 'ITEM_CHANGED', {first} + n * 4096, 1
               from generate_series(1, {USERS}) as n;"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(weekly)).execute(&db).await.unwrap();
    }
    let heads = format!(
        "insert into user_heads (shard, user_id, seq, seen_seq)
           select {shard}, n, case n when 1 then {WEEKS} * {ITEMS} else 2 * {WEEKS} end,
             case n when 1 then {WEEKS} * {ITEMS} - 300 else 0 end
           from generate_series(1, 1 + {USERS}) as n;
         insert into users (shard, user_id, partner_id, external_id, nickname, user_code, created_at, updated_at)
           select {shard}, n, {partner}, 'u' || n, 'u', n::text, '{now}', '{now}' from generate_series(1, {USERS}) as n;
         insert into live_processes (process_id, seen_at) select n, '{now}' from generate_series(1, 3) as n;
         insert into connections (connection_id, shard, user_id, process_id, kind, opened_at)
           select n, {shard}, n, n % 3 + 1, 1, '{now}' from generate_series(1, {USERS}) as n;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(heads)).execute(&db).await.unwrap();
    db
}

/// The engine's statements of inboxes and streams go by their indexes whatever the statistics say (of empty tables, of
/// full ones, none), and touch as much as they bring, beside a hundred thousand items of one user and months of other
/// users' items. So do the API's: those of users at once, the others once the tables were analysed.
#[tokio::test]
async fn inbox_statements_go_by_their_indexes_whatever_the_statistics_say() {
    let app = App::new().await;
    let (hub, shard, partner) = (&app.hub, app.partner.shard, app.partner.partner_id.0);
    sqlx::raw_sql("analyze").execute(&app.db().await).await.unwrap();
    let db = fill(&app).await;
    let indexes = indexes(&db).await;

    let list = |first: i64, step: i64| {
        let values: Vec<String> = (1..=BATCH).map(|n| (first + n * step).to_string()).collect();
        format!("array[{}]::bigint[]", values.join(","))
    };
    let all = |value: &str| format!("array_fill({value}, array[{BATCH}])");
    let (shards, users) = (all(&format!("{shard}::smallint")), list(1, 1));
    let now = format!("timestamptz '{}'", hub.clock.now());
    let new = Tsid::floor(hub.clock.now() + TimeDelta::weeks(WEEKS)).0;
    let newest = Tsid::floor(hub.clock.now() + TimeDelta::weeks(WEEKS - 1)).0 + ITEMS * 4096;
    let put = format!(
        "{shards}, {users}, {}, {}, {}, {}, {now}, {new}, {}",
        list(new, 4096),
        all("1::smallint"),
        all("0::smallint"),
        all("null::timestamptz"),
        new + BATCH * 4096,
    );
    let first = Tsid::floor(hub.clock.now()).0;
    let again = format!("{shards}, {}, {}, {now}, {new}, 'ITEM_MOVED'", list(first, 4096), all("1::smallint"));
    let find = |prefix: &str, user_id: &str| {
        let names: Vec<String> = (1..=BATCH).map(|n| format!("'{prefix}{n}'")).collect();
        let partners = all(&format!("{partner}::bigint"));
        format!("{shards}, {partners}, array[{}]::text[], {}", names.join(","), all(user_id))
    };
    let make = {
        let texts = |prefix: &str| {
            let names: Vec<String> = (1..=BATCH).map(|n| format!("'{prefix}{n}'")).collect();
            format!("array[{}]::text[]", names.join(","))
        };
        let hashes: Vec<String> = (1..=BATCH).map(|n| format!("sha256('{n}'::bytea)")).collect();
        format!(
            "{shards}, {}, {}, {}, {}, {}, {now}, array[{}]::bytea[]",
            all(&format!("{partner}::bigint")),
            texts("made"),
            list(new, 4096),
            all("'Kim'::text"),
            texts("code"),
            hashes.join(","),
        )
    };
    let pairs = format!("{shards}, {users}");
    let one = format!("array[{shard}]::smallint[], array[1]::bigint[]");
    let head = WEEKS * ITEMS;
    let heads = ["pk_user_heads"];
    let items = ["pk_inbox_items", "pk_user_heads"];
    let numbered = ["idx_inbox_item_seq", "pk_inbox_items", "pk_user_heads", "pk_stream_events"];
    let weeks = 16;

    let cases: Vec<(&'static str, String, i64, &[&str], i64)> = vec![
        ("inbox/put", put, BATCH, &items, BATCH * 40),
        ("inbox/lock_heads", pairs.clone(), BATCH, &heads, BATCH * 8),
        ("stream/user_heads", pairs.clone(), BATCH, &heads, BATCH * 8),
        // The last change and the last item of each, and its item as it is now: three searches of each week.
        (
            "stream/user_tails",
            format!("{pairs}, {}, 200, 'ITEM_ARRIVED'", all(&format!("(2 * {WEEKS} - 2)::bigint"))),
            2 * BATCH,
            &numbered,
            BATCH * 3 * weeks * 3,
        ),
        (
            "stream/user_tails",
            format!("{one}, array[{}]::bigint[], 200, 'ITEM_ARRIVED'", head - 20),
            20,
            &numbered,
            20 * 3 * weeks,
        ),
        ("inbox/snoozed_due", format!("array[{shard}]::smallint[], {now}, 100"), 100, &["idx_inbox_item_snoozed"], 400),
        (
            "inbox/arrive_again",
            again,
            BATCH,
            &["idx_inbox_item_snoozed", "pk_inbox_items", "pk_user_heads"],
            BATCH * 40,
        ),
        (
            "inbox/list",
            format!("{shard}::smallint, 1, 'ALL', null, {}, {now}, 50", i64::MAX),
            50,
            &["idx_inbox_item_seq", "pk_user_heads"],
            50 * 4,
        ),
        (
            "inbox/counts",
            format!("{one}, {now}, 101"),
            1,
            &["idx_inbox_item_unread", "idx_inbox_item_seq", "pk_user_heads"],
            101 * 4 + weeks * 12,
        ),
        ("inbox/get", format!("{shard}::smallint, 1, {newest}, 2::smallint"), 1, &items, 20),
        (
            "inbox/change",
            format!("{shard}::smallint, 1, {newest}, 2::smallint, 'READ', null, {now}, {new}, 'ITEM_CHANGED'"),
            1,
            &items,
            120,
        ),
        (
            "inbox/see",
            format!("{shard}::smallint, 1, null, {new}, 'SEEN'"),
            1,
            &["idx_inbox_item_seq", "pk_user_heads"],
            weeks * 4 + 40,
        ),
        (
            "inbox/read_all",
            format!("{shard}::smallint, 1, null, {now}, {new}, 'READ_ALL', null"),
            1,
            &["idx_inbox_item_unread", "idx_inbox_item_seq", "pk_inbox_items", "pk_user_heads"],
            300 * 20,
        ),
        (
            "connection/of_users",
            format!("{pairs}, {now}"),
            BATCH,
            &["idx_connection_user", "pk_live_processes"],
            BATCH * 8,
        ),
        ("user/find", find("u", "null::bigint"), BATCH, &["uk_user_external", "pk_users"], BATCH * 10),
        ("user/find", find("new", "2::bigint"), BATCH, &["uk_user_external", "pk_users"], BATCH * 10),
        ("user/insert_external", make, 0, &["idx_user_former_external"], BATCH * 40),
        ("user/find_external", format!("{shard}::smallint, {partner}, 'u7'"), 1, &["uk_user_external"], 40),
        ("user/get", format!("{shard}::smallint, {partner}, 7, null, null"), 1, &["pk_users", "idx_user_partner"], 40),
    ];
    for statistics in STATISTICS {
        make_statistics(&db, statistics).await;
        println!("statistics: {statistics}");
        for (name, args, rows, allowed, buffers) in &cases {
            // Of the engine's connections; the others are the API's.
            let is_engine = [
                "inbox/put",
                "inbox/lock_heads",
                "inbox/arrive_again",
                "inbox/snoozed_due",
                "user/find",
                "user/insert_external",
            ]
            .contains(name)
                || name.starts_with("stream/");
            let pool = if is_engine { hub.store.engine() } else { hub.store.api() };
            let plan = explain(&mut pool.acquire().await.unwrap(), name, args).await;
            println!("{name}: {} rows, {} blocks", plan.rows, plan.buffers);
            assert_eq!(plan.rows, *rows, "{name}");
            if is_engine || name.starts_with("user/") || statistics == "of full tables" {
                // Processes, connections and heads are few here, and may be read in full.
                plan.finds_by(&indexes, allowed, &["live_processes", "connections", "user_heads"], *buffers);
            } else {
                // The API's plans follow the statistics. Of tables that it believes empty it reads what the user has.
                assert!(plan.buffers <= ITEMS, "{name} touched {} blocks: {:#?}", plan.buffers, plan.nodes);
            }
        }
    }
    let empty = "delete from inbox_items; delete from stream_events; delete from user_heads; delete from users; \
                 delete from connections; delete from live_processes";
    sqlx::raw_sql(empty).execute(&db).await.unwrap();
    app.done().await;
}
