//! Tickets: each opens one stream where no header can be set. The table is unlogged: a crash of the server ends them.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

/// The user that a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketUser {
    pub shard: i16,
    pub user_id: Tsid,
    pub partner_id: Tsid,
    /// The sign-in, if there was one.
    pub sid: Option<Tsid>,
    /// When the token ends with which the ticket was asked for.
    pub token_until: Option<DateTime<Utc>>,
    pub valid_until: DateTime<Utc>,
}

/// Stores a ticket by its hash.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the statement may have committed.
pub async fn insert(db: impl Db<'_>, hash: &[u8], user: &TicketUser) -> Result<()> {
    sqlx::query_file!(
        "sql/ticket/insert.sql",
        hash,
        user.shard,
        user.user_id.0,
        user.partner_id.0,
        user.sid.map(|sid| sid.0),
        user.token_until,
        user.valid_until,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a ticket that is still valid. It is gone then: of two callers one gets it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the ticket may be gone.
pub async fn take(db: impl Db<'_>, hash: &[u8], now: DateTime<Utc>) -> Result<Option<TicketUser>> {
    let row = sqlx::query_file!("sql/ticket/take.sql", hash, now).fetch_optional(db).await?;
    Ok(row.map(|r| TicketUser {
        shard: r.shard,
        user_id: Tsid(r.user_id),
        partner_id: Tsid(r.partner_id),
        sid: r.sid.map(Tsid),
        token_until: r.token_until,
        valid_until: r.valid_until,
    }))
}

/// Deletes tickets that are no longer valid. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the statement may have committed.
pub async fn delete_old(db: impl Db<'_>, now: DateTime<Utc>) -> Result<u64> {
    Ok(sqlx::query_file!("sql/ticket/delete_old.sql", now).execute(db).await?.rows_affected())
}
