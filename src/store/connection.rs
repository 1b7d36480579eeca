//! Live connections of users, of all processes. The tables are unlogged: a crash of the server ends the connections,
//! too.

use chrono::{DateTime, Utc};

use super::Db;
use super::inbox::user_columns;
use crate::error::Result;
use crate::id::Tsid;

/// A live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    pub connection_id: Tsid,
    pub shard: i16,
    pub user_id: Tsid,
    pub opened_at: DateTime<Utc>,
}

/// The kind of a stream of Server-Sent Events.
const SSE: i16 = 1;

/// Records connections of this process that were opened.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the statement may have committed.
pub async fn insert(db: impl Db<'_>, process: Tsid, opened: &[Connection]) -> Result<()> {
    let (shards, users) = user_columns(opened.iter().map(|c| (c.shard, c.user_id)));
    sqlx::query_file!(
        "sql/connection/insert.sql",
        process.0,
        &opened.iter().map(|c| c.connection_id.0).collect::<Vec<_>>(),
        &shards,
        &users,
        &vec![SSE; opened.len()],
        &opened.iter().map(|c| c.opened_at).collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes connections that were closed.
///
/// # Errors
/// As `insert`.
pub async fn delete(db: impl Db<'_>, closed: &[Tsid]) -> Result<()> {
    let closed: Vec<i64> = closed.iter().map(|id| id.0).collect();
    sqlx::query_file!("sql/connection/delete.sql", &closed).execute(db).await?;
    Ok(())
}

/// Records that a process with connections lives. Removes processes that were not seen since `gone_since`, with their
/// connections.
///
/// # Errors
/// As `insert`.
pub async fn beat(db: impl Db<'_>, process: Tsid, now: DateTime<Utc>, gone_since: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/connection/beat.sql", process.0, now, gone_since).execute(db).await?;
    Ok(())
}

/// Records when users last did something, in their connections: one time for each user.
///
/// # Errors
/// As `insert`.
pub async fn touch(db: impl Db<'_>, active: &[((i16, Tsid), DateTime<Utc>)]) -> Result<()> {
    let (shards, users) = user_columns(active.iter().map(|(user, _)| *user));
    let times: Vec<DateTime<Utc>> = active.iter().map(|(_, at)| *at).collect();
    sqlx::query_file!("sql/connection/touch.sql", &shards, &users, &times).execute(db).await?;
    Ok(())
}

/// Those of these users that have a connection of a process seen since `since`, each with the time at which it last
/// opened one or did something.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_users(
    db: impl Db<'_>,
    users: &[(i16, Tsid)],
    since: DateTime<Utc>,
) -> Result<Vec<(Tsid, DateTime<Utc>)>> {
    let (shards, ids) = user_columns(users.iter().copied());
    let rows = sqlx::query_file!("sql/connection/of_users.sql", &shards, &ids, since).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (Tsid(r.user_id), r.active_at)).collect())
}
