//! Statements that only `bench` uses: fill large tables quickly, measure what a run cost, and inject faults.

use chrono::{DateTime, Utc};
use sqlx::Connection as _;

use super::{Conn, Db, Store, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::chat_message::ChatKind;
use crate::model::delivery::{READY_WHEN_RESUMED, Status};
use crate::model::lane::Lane;
use crate::model::partner::Partner;

/// Most members of a room: more than any scenario has.
const MEMBERS_OF_BENCH: i32 = 1_000_000;

/// A run of messages with consecutive ids and one delivery each.
pub struct BulkFill {
    /// Id of the first message.
    pub first: Tsid,
    pub count: i64,
    /// The message's type.
    pub kind: &'static str,
    pub lane: Lane,
    pub status: Status,
    pub created_at: DateTime<Utc>,
    /// Of the first delivery; each following one is a microsecond later.
    pub ready_at: DateTime<Utc>,
}

/// Inserts messages, and the attempts, events and statistics of those that are SENT or FAILED. `detail` is JSON text,
/// the same for all.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn fill(conn: &mut Conn, partner: &Partner, fill: &BulkFill, detail: &str) -> Result<()> {
    sqlx::query_file!(
        "sql/bench/fill.sql",
        partner.partner_id.0,
        partner.shard,
        fill.first.0,
        fill.count,
        fill.lane.0,
        fill.status.as_str(),
        fill.created_at,
        fill.ready_at,
        detail,
        fill.kind,
    )
    .execute(&mut *conn)
    .await?;
    if matches!(fill.status, Status::Sent | Status::Failed) {
        sqlx::query_file!(
            "sql/bench/fill_history.sql",
            partner.shard,
            fill.first.0,
            fill.count,
            fill.ready_at,
            partner.partner_id.0,
            fill.lane.0,
            fill.status.as_str(),
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Bytes of write-ahead log written so far.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn wal_bytes(db: impl Db<'_>) -> Result<f64> {
    Ok(sqlx::query_file_scalar!("sql/bench/wal_bytes.sql").fetch_one(db).await?)
}

/// Dead rows of all tables, as the server's statistics count them.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn dead_rows(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/dead_rows.sql").fetch_one(db).await?)
}

/// Transactions committed in this database so far, as the server's statistics count them: a session reports its own
/// within a second.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn transactions(db: impl Db<'_>) -> Result<f64> {
    Ok(sqlx::query_file_scalar!("sql/bench/transactions.sql").fetch_one(db).await?)
}

/// Rooms with consecutive ids, and their members.
pub struct RoomFill<'a> {
    /// Id of the first room.
    pub first: Tsid,
    pub rooms: i64,
    /// Members of every room; the first one has made them.
    pub everywhere: &'a [Tsid],
    /// Members of one room each: the n-th of the n-th room, and from the first room again after the last.
    pub in_turn: &'a [Tsid],
}

/// Makes groups with their members.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn fill_rooms(conn: &mut Conn, partner: &Partner, fill: &RoomFill<'_>, now: DateTime<Utc>) -> Result<()> {
    let ids = |users: &[Tsid]| users.iter().map(|user| user.0).collect::<Vec<i64>>();
    sqlx::query_file!(
        "sql/bench/fill_rooms.sql",
        partner.shard,
        fill.first.0,
        fill.rooms,
        partner.partner_id.0,
        &ids(fill.everywhere),
        &ids(fill.in_turn),
        now,
        MEMBERS_OF_BENCH,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A run of messages of rooms with consecutive ids.
pub struct ChatFill<'a> {
    /// Id of the first room; the ids of the rooms are consecutive.
    pub first_room: Tsid,
    pub rooms: i64,
    /// Messages that each room has so far, and those to insert into each.
    pub before: i64,
    pub of_each: i64,
    /// Id of the first message; those of the others follow it.
    pub first: Tsid,
    pub senders: &'a [Tsid],
    /// JSON text, the same for all.
    pub content: &'a str,
}

/// Inserts messages into rooms that have nothing but such messages.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn fill_chat_messages(conn: &mut Conn, shard: i16, fill: &ChatFill<'_>) -> Result<()> {
    let senders: Vec<i64> = fill.senders.iter().map(|user| user.0).collect();
    sqlx::query_file!(
        "sql/bench/fill_chat_messages.sql",
        shard,
        fill.first_room.0,
        fill.rooms,
        fill.before,
        fill.of_each,
        fill.first.0,
        &senders,
        ChatKind::Text.as_str(),
        fill.content,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The messages of rooms from an id on: their number, and how many different tempIds they have.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_chat_messages(store: &Store, from: Tsid) -> Result<(u64, u64)> {
    let mut conn = store.connect_without_timeout().await?;
    let counted = sqlx::query_file!("sql/bench/count_chat_messages.sql", from.0).fetch_one(&mut conn).await?;
    Ok((counted.n.unsigned_abs(), counted.temp_ids.unsigned_abs()))
}

/// Number of deliveries with a status.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_with_status(db: impl Db<'_>, status: Status) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/count_with_status.sql", status.as_str()).fetch_one(db).await?)
}

/// Number of marks of ended deliveries that no process has taken yet.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_ending_marks(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/count_ending_marks.sql").fetch_one(db).await?)
}

/// Makes every SCHEDULED delivery due at `now`, except parked ones.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn make_scheduled_due(db: impl Db<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/bench/make_scheduled_due.sql", now, READY_WHEN_RESUMED).execute(db).await?;
    Ok(())
}

/// Share of all deliveries that are in overflow lanes, 0 to 1.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn overflow_share(db: impl Db<'_>) -> Result<f64> {
    Ok(sqlx::query_file_scalar!("sql/bench/overflow_share.sql").fetch_one(db).await?)
}

/// Cuts the connections over which processes listen to notifications: those that are on their way are lost.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn cut_listeners(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/cut_listeners.sql").fetch_one(db).await?)
}

/// The server's data directory. None if this login may not read it, or the database cannot be reached.
pub async fn data_directory(db: impl Db<'_>) -> Option<String> {
    sqlx::query_file_scalar!("sql/bench/data_directory.sql").fetch_one(db).await.ok()
}

/// Creates an empty database on the server of `url`. Returns its URL.
///
/// # Errors
/// `Error::Unavailable` if the server cannot be reached, `Error::Internal` if the login may not create databases.
pub async fn create_database(url: &str, name: &str) -> Result<String> {
    let mut conn = Conn::connect(url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut conn).await?;
    let (before, query) = url.split_once('?').map_or((url, String::new()), |(b, q)| (b, format!("?{q}")));
    let base = before.rsplit_once('/').map_or(before, |(base, _)| base);
    Ok(format!("{base}/{name}{query}"))
}

/// Drops a database on the server of `url`, ending its sessions. Does nothing if there is none.
///
/// # Errors
/// `Error::Unavailable` if the server cannot be reached, `Error::Internal` if the login may not drop it.
pub async fn drop_database(url: &str, name: &str) -> Result<()> {
    let mut conn = Conn::connect(url).await?;
    let ddl = format!("drop database if exists {name} with (force)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&mut conn).await?;
    Ok(())
}

/// Vacuums and analyzes the large tables after filling, as autovacuum would in time, and runs a checkpoint.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn vacuum_tables(store: &Store) -> Result<()> {
    let mut conn = store.connect_without_timeout().await?;
    for statement in [
        "vacuum (analyze) messages",
        "vacuum (analyze) deliveries",
        "vacuum (analyze) attempts",
        "vacuum (analyze) events",
        "vacuum (analyze) rooms",
        "vacuum (analyze) room_gates",
        "vacuum (analyze) members",
        "vacuum (analyze) chat_messages",
        "checkpoint",
    ] {
        sqlx::raw_sql(statement).execute(&mut conn).await?;
    }
    Ok(())
}

/// An open transaction; it ends when this is dropped.
pub struct HeldTransaction(#[expect(dead_code, reason = "held, not used")] Conn);

/// Holds a snapshot: rows that die meanwhile cannot be vacuumed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn hold_snapshot(store: &Store) -> Result<HeldTransaction> {
    let mut conn = store.connect_without_timeout().await?;
    sqlx::raw_sql(
        "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read; select txid_current()",
    )
    .execute(&mut conn)
    .await?;
    Ok(HeldTransaction(conn))
}

/// Blocks writers of `deliveries`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn lock_deliveries(store: &Store) -> Result<HeldTransaction> {
    let mut conn = store.connect_without_timeout().await?;
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; begin; lock table deliveries in exclusive mode")
        .execute(&mut conn)
        .await?;
    Ok(HeldTransaction(conn))
}

/// Blocks readers and writers of `messages`; claims, which read `deliveries` alone, go on.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn lock_messages(store: &Store) -> Result<HeldTransaction> {
    let mut conn = store.connect_without_timeout().await?;
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; begin; lock table messages in access exclusive mode")
        .execute(&mut conn)
        .await?;
    Ok(HeldTransaction(conn))
}

/// Number of rejected attempts that another attempt followed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_refusals(store: &Store) -> Result<u64> {
    let mut conn = store.connect_without_timeout().await?;
    Ok(sqlx::query_file_scalar!("sql/bench/count_refusals.sql").fetch_one(&mut conn).await?.unsigned_abs())
}

/// Lets new sessions in this database confirm commits before they are on disk. The hub refuses to run on such a
/// database.
///
/// # Errors
/// `Error::Unavailable` if the server cannot be reached, `Error::Internal` if the login may not alter it.
pub async fn disable_synchronous_commit(url: &str, name: &str) -> Result<()> {
    let mut conn = Conn::connect(url).await?;
    let ddl = format!("alter database {name} set synchronous_commit = off");
    sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&mut conn).await?;
    Ok(())
}

/// Of each message of a fault-injection run: its token (stored as its type), id, delivery status, and the number of
/// attempts that the provider accepted or may have accepted.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn run_results(store: &Store) -> Result<Vec<(String, Tsid, Status, i64)>> {
    let mut conn = store.connect_without_timeout().await?;
    let rows = sqlx::query_file!("sql/bench/run_results.sql").fetch_all(&mut conn).await?;
    rows.into_iter()
        .map(|r| Ok((r.kind, Tsid(r.message_id), parse_word(&r.status, "status")?, r.may_be_sent)))
        .collect()
}
