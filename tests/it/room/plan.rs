//! Plans: statements of rooms touch what they bring, beside a room with a million messages, whatever the statistics
//! say.

use notihub::id::Tsid;

use crate::support::app::App;
use crate::support::sql::{STATISTICS, explain, indexes, make_statistics};

/// Messages of room 1, rooms besides it, and messages of each of these.
const MESSAGES: i64 = 1_000_000;
const ROOMS: i64 = 2_000;
const FEW: i64 = 5;
/// What a group brings.
const GROUP: i64 = 100;
/// The blocks that a statement of the API may touch while the statistics are not of full tables.
const BLOCKS: i64 = 10_000;

/// A statement, its arguments, the rows that it returns, the indexes and blocks that it may read, and whether it is the
/// engine's.
type Case<'c> = (&'static str, String, i64, &'c [&'c str], i64, bool);

/// S2-6, S2-37, S2-69, S2-36, S2-46, S2-67, S2-68, S4-204: the engine's statements of rooms go by their indexes
/// whatever the statistics say (of empty tables, of full ones, none), and the API's once the tables were analysed.
#[tokio::test]
async fn room_statements_go_by_their_indexes_whatever_the_statistics_say() {
    let app = App::new().await;
    let (hub, shard, partner) = (&app.hub, app.partner.shard, app.partner.partner_id.0);
    let db = app.db().await;
    sqlx::raw_sql("analyze").execute(&db).await.unwrap();
    let now = format!("timestamptz '{}'", hub.clock.now());
    let first = Tsid::floor(hub.clock.now()).0;
    let fill = format!(
        "insert into users (shard, user_id, partner_id, external_id, nickname, user_code, created_at, updated_at)
           select {shard}, n, {partner}, 'u' || n, 'u', n::text, {now}, {now} from generate_series(1, {ROOMS}) as n;
         insert into rooms (shard, room_id, partner_id, kind, visibility, encrypted, created_by, created_at, updated_at)
           select {shard}, n, {partner}, 'GROUP', 'PRIVATE', false, 1, {now}, {now}
           from generate_series(1, {ROOMS}) as n;
         insert into room_gates (shard, room_id, seq, no, last_seq, last_id, members, most_members, is_individual)
           select {shard}, n, k, k, k, {first} + n, 2, 500, false
           from (select n, case n when 1 then {MESSAGES} else {FEW} end as k from generate_series(1, {ROOMS}) as n) r;
         insert into members (shard, room_id, user_id, role, joined_at)
           select {shard}, n, u, 'MEMBER', {now}
           from generate_series(1, {ROOMS}) as n, lateral (values (1), (case n when 1 then 2 else n end)) as m(u);
         insert into chat_messages (shard, room_id, seq, no, chat_id, sender_id, temp_id, kind, content)
           select {shard}, 1, n, n, {first} + n, 1 + n % 2, 't' || n, 'TEXT', '{{\"text\":\"a\"}}'
           from generate_series(1, {MESSAGES}) as n;
         insert into chat_messages (shard, room_id, seq, no, chat_id, sender_id, temp_id, kind, content)
           select {shard}, r, n, n, {first} + n, 1, 't' || n, 'TEXT', '{{\"text\":\"a\"}}'
           from generate_series(2, {ROOMS}) as r, generate_series(1, {FEW}) as n;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&db).await.unwrap();
    let indexes = indexes(&db).await;

    let list = |value: &dyn Fn(i64) -> String, kind: &str| {
        let values: Vec<String> = (1..=GROUP).map(value).collect();
        format!("array[{}]::{kind}[]", values.join(","))
    };
    let shards = list(&|_| shard.to_string(), "smallint");
    let rooms = list(&|n| n.to_string(), "bigint");
    let new = Tsid::floor(hub.clock.now()).0 + 10 * MESSAGES;
    let send = format!(
        "{shards}, {rooms}, {}, {}, {}, {}, {}, {now}, {new}, 4194304000",
        list(&|_| "1".into(), "bigint"),
        list(&|n| format!("'new{n}'"), "text"),
        list(&|n| (new + n).to_string(), "bigint"),
        list(&|_| "'TEXT'".into(), "text"),
        list(&|_| "'{\"text\":\"a\"}'".into(), "text"),
    );
    let after = list(&|n| (if n == 1 { MESSAGES - 3 } else { FEW - 3 }).to_string(), "bigint");
    let marks = list(&|_| "3".into(), "bigint");
    let mark = format!("{shards}, {rooms}, {}, {marks}, {marks}, {now}, true", list(&|_| "1".into(), "bigint"));
    let senders = list(&|_| "1".into(), "bigint");
    let repeated = format!("{shards}, {rooms}, {senders}, {}", list(&|_| "'t2'".into(), "text"));
    let own = ["idx_chat_message_sender"];
    let members = ["pk_members", "idx_chat_message_sender"];
    let readers = ["pk_members", "idx_chat_message_sender", "pk_read_marks"];
    let rooms_of = ["idx_member_user", "idx_chat_message_sender", "pk_chat_messages", "pk_room_gates"];
    let lasts = list(&|n| (if n == 1 { MESSAGES } else { FEW }).to_string(), "bigint");
    let messages = [
        "pk_chat_messages",
        "idx_chat_message_sender",
        "pk_room_gates",
        "pk_members",
        "pk_user_blocks",
        "idx_user_block_blocked",
    ];
    let heads = ["pk_chat_messages", "pk_room_gates"];
    let tails = ["pk_chat_messages", "pk_stream_events", "pk_room_gates"];
    let page = ["pk_chat_messages"];
    let cases: Vec<Case<'_>> = vec![
        ("chat_message/send", send, GROUP, &messages, GROUP * 60, true),
        ("stream/room_heads", format!("{shards}, {rooms}"), GROUP, &heads, GROUP * 12, true),
        (
            "stream/room_tails",
            format!("{shards}, {rooms}, {after}, 200, 'MESSAGE_CREATED'"),
            3 * GROUP,
            &tails,
            3 * GROUP * 40,
            true,
        ),
        ("member/mark", mark, GROUP, &["pk_members", "pk_read_marks"], GROUP * 60, true),
        ("chat_message/before", format!("{shard}::smallint, 1, 70000, 0, 51"), 51, &page, 120, false),
        ("chat_message/after", format!("{shard}::smallint, 1, 70000, 0, 51"), 51, &page, 120, false),
        ("chat_message/get", format!("{shard}::smallint, 1, 70000"), 1, &page, 20, false),
        (
            "chat_message/find_temp",
            format!("{shard}::smallint, 1, 1, 't70000'"),
            1,
            &["uk_chat_message_temp"],
            20,
            false,
        ),
        ("chat_message/lasts", format!("{shards}, {rooms}, {lasts}"), GROUP, &page, GROUP * 12, false),
        ("chat_message/repeated", repeated, GROUP, &["uk_chat_message_temp"], GROUP * 12, true),
        ("chat_message/last_of_sender", format!("{shard}::smallint, 1, 1"), 1, &own, 12, false),
        ("chat_message/reads", format!("{shard}::smallint, 1, 70000, 1"), 1, &readers, 60, false),
        ("member/marks", format!("{shard}::smallint, 1"), 2, &members, 40, false),
        ("room/unread_of_user", format!("{shard}::smallint, 2, 200"), 2, &rooms_of, 60, false),
    ];
    for statistics in STATISTICS {
        make_statistics(&db, statistics).await;
        println!("statistics: {statistics}");
        for (name, args, rows, allowed, buffers, is_engine) in &cases {
            let pool = if *is_engine { hub.store.engine() } else { hub.store.api() };
            let plan = explain(&mut pool.acquire().await.unwrap(), name, args).await;
            println!("{name}: {} rows, {} blocks", plan.rows, plan.buffers);
            assert_eq!(plan.rows, *rows, "{name}");
            if *is_engine || statistics == "of full tables" {
                // Gates and members are few here, and may be read in full.
                plan.finds_by(&indexes, allowed, &["room_gates", "members"], *buffers);
            } else {
                assert!(plan.buffers <= BLOCKS, "{name} touched {} blocks: {:#?}", plan.buffers, plan.nodes);
            }
        }
    }
    let empty = "delete from chat_messages; delete from members; delete from room_gates; delete from rooms; \
                 delete from users";
    sqlx::raw_sql(empty).execute(&db).await.unwrap();
    app.done().await;
}
