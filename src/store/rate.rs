//! Request rates: how many each partner made in the last second, over all processes.

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::rate::COUNTED_SLOTS;

/// Takes up to `wanted` of what is free, or nothing when that is less than `least`; and what is free then.
pub async fn take(
    db: impl Db<'_>,
    partner_id: Tsid,
    slot: i64,
    wanted: i32,
    limit: i32,
    least: i32,
) -> Result<(i32, i32)> {
    let row =
        sqlx::query_file!("sql/rate/take.sql", partner_id.0, slot, wanted, limit, least, COUNTED_SLOTS).fetch_one(db);
    let row = row.await?;
    Ok((row.granted, row.free))
}
