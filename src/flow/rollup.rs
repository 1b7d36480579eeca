//! Roll-up: adds what was counted meanwhile to its days. Nothing waits for it: whoever reads sums both.

use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::store;

/// One batch; returns whether there may be more.
pub async fn rollup(hub: &Hub) -> Result<bool> {
    let rows = limits::HOUSEKEEPING_BATCH;
    Ok(store::stats::roll_up(hub.store.engine(), rows).await? == rows)
}
