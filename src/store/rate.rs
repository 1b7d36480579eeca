//! Request rates: requests of each partner in the last second, over all processes.

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::rate::COUNTED_SLOTS;

/// Takes up to `wanted` requests of a partner's `limit` per second for this process, or none if fewer than `least` are
/// free. `slot` numbers the current part of a second (see `model::rate`). Returns the number granted, and the number
/// still free after that.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn take_permits(
    db: impl Db<'_>,
    partner_id: Tsid,
    slot: i64,
    wanted: i32,
    limit: i32,
    least: i32,
) -> Result<(i32, i32)> {
    let row = sqlx::query_file!("sql/rate/take_permits.sql", partner_id.0, slot, wanted, limit, least, COUNTED_SLOTS)
        .fetch_one(db);
    let row = row.await?;
    Ok((row.granted, row.free))
}
