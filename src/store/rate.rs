//! Request rates: how many each partner made in the last second, over all processes.

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

/// Takes up to `wanted` of what is free, or nothing when that is less than `least`.
pub async fn take(db: impl Db<'_>, partner_id: Tsid, slot: i64, wanted: i32, limit: i32, least: i32) -> Result<i32> {
    let slots = crate::model::rate::SLOTS;
    Ok(sqlx::query_file_scalar!("sql/rate/take.sql", partner_id.0, slot, wanted, limit, least, slots)
        .fetch_one(db)
        .await?)
}
