//! Roll-up: adds the statistics that settles have inserted to their days. Readers sum both, so nothing waits for it.

use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::store;

/// Rolls up one batch; returns whether there may be more.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the batch is rolled up completely or not at all.
pub async fn rollup(hub: &Hub) -> Result<bool> {
    let rows = limits::HOUSEKEEPING_BATCH;
    let roll_up = async |from| store::stats::roll_up(hub.store.engine(), rows, from).await;
    Ok(hub.tails.stat_deltas.read(roll_up).await? == rows)
}
