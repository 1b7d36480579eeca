//! What `bench` needs of the database and nothing else does: large tables quickly, and what a run cost.

use chrono::{DateTime, Utc};
use sqlx::Connection as _;

use super::{Conn, Db, Store, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{READY_WHEN_RESUMED, Status};
use crate::model::lane::Lane;
use crate::model::partner::Partner;

/// A run of messages with one delivery each.
pub struct Fill {
    pub first: Tsid,
    pub count: i64,
    pub kind: &'static str,
    pub lane: Lane,
    pub status: Status,
    pub created_at: DateTime<Utc>,
    pub ready_at: DateTime<Utc>,
}

pub async fn fill(conn: &mut Conn, partner: &Partner, fill: &Fill, detail: &str) -> Result<()> {
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

pub async fn wal_bytes(db: impl Db<'_>) -> Result<f64> {
    Ok(sqlx::query_file_scalar!("sql/bench/wal.sql").fetch_one(db).await?)
}

pub async fn dead_rows(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/dead.sql").fetch_one(db).await?)
}

pub async fn count(db: impl Db<'_>, status: Status) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/open.sql", status.as_str()).fetch_one(db).await?)
}

/// Marks of ended deliveries that nobody has looked at yet.
pub async fn marks(db: impl Db<'_>) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/bench/marks.sql").fetch_one(db).await?)
}

/// Ends every pause between attempts, but for what is parked.
pub async fn hurry(db: impl Db<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/bench/hurry.sql", now, READY_WHEN_RESUMED).execute(db).await?;
    Ok(())
}

/// Which part of all deliveries was put in an overflow lane, 0 to 1.
pub async fn overflow(db: impl Db<'_>) -> Result<f64> {
    Ok(sqlx::query_file_scalar!("sql/bench/overflow.sql").fetch_one(db).await?)
}

/// The server's data folder, when we may ask for it.
pub async fn folder(db: impl Db<'_>) -> Option<String> {
    sqlx::query_file_scalar!("sql/bench/postmaster.sql").fetch_one(db).await.ok()
}

/// An empty database beside the one the URL names; its URL.
pub async fn create_database(url: &str, name: &str) -> Result<String> {
    let mut conn = Conn::connect(url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut conn).await?;
    let (before, query) = url.split_once('?').map_or((url, String::new()), |(b, q)| (b, format!("?{q}")));
    let base = before.rsplit_once('/').map_or(before, |(base, _)| base);
    Ok(format!("{base}/{name}{query}"))
}

pub async fn drop_database(url: &str, name: &str) -> Result<()> {
    let mut conn = Conn::connect(url).await?;
    let ddl = format!("drop database if exists {name} with (force)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&mut conn).await?;
    Ok(())
}

/// Brings statistics and visibility up to date after filling, as autovacuum would have.
pub async fn settle_tables(store: &Store) -> Result<()> {
    let mut conn = store.unhurried().await?;
    for statement in [
        "vacuum (analyze) messages",
        "vacuum (analyze) deliveries",
        "vacuum (analyze) attempts",
        "vacuum (analyze) events",
        "checkpoint",
    ] {
        sqlx::raw_sql(statement).execute(&mut conn).await?;
    }
    Ok(())
}

/// A snapshot held for as long as this lives: nothing that dies meanwhile can be cleaned away.
pub struct Pin(#[expect(dead_code, reason = "held, not used")] Conn);

pub async fn pin(store: &Store) -> Result<Pin> {
    let mut conn = store.unhurried().await?;
    sqlx::raw_sql(
        "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read; select txid_current()",
    )
    .execute(&mut conn)
    .await?;
    Ok(Pin(conn))
}

/// Writers of deliveries wait for as long as this lives.
pub async fn lock_out(store: &Store) -> Result<Pin> {
    let mut conn = store.unhurried().await?;
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; begin; lock table deliveries in exclusive mode")
        .execute(&mut conn)
        .await?;
    Ok(Pin(conn))
}

/// Readers of messages wait for as long as this lives; claims, which read none, go on.
pub async fn lock_readers_of_messages(store: &Store) -> Result<Pin> {
    let mut conn = store.unhurried().await?;
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; begin; lock table messages in access exclusive mode")
        .execute(&mut conn)
        .await?;
    Ok(Pin(conn))
}

/// Attempts that a provider refused for now: the delivery has one more.
pub async fn refusals(store: &Store) -> Result<u64> {
    let mut conn = store.unhurried().await?;
    Ok(sqlx::query_file_scalar!("sql/bench/refusals.sql").fetch_one(&mut conn).await?.unsigned_abs())
}

/// New sessions in this database confirm commits before they are on disk: what the hub refuses to run on.
pub async fn confirm_too_early(url: &str, name: &str) -> Result<()> {
    let mut conn = Conn::connect(url).await?;
    let ddl = format!("alter database {name} set synchronous_commit = off");
    sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&mut conn).await?;
    Ok(())
}

/// A message of a run in which faults were made: its token, its id, where its delivery stands, and how many attempts the
/// provider may have taken.
pub async fn endings(store: &Store) -> Result<Vec<(String, Tsid, Status, i64)>> {
    let mut conn = store.unhurried().await?;
    let rows = sqlx::query_file!("sql/bench/endings.sql").fetch_all(&mut conn).await?;
    rows.into_iter().map(|r| Ok((r.kind, Tsid(r.message_id), word(&r.status, "status")?, r.may_be_sent))).collect()
}
