//! Retain: partitions ahead, and gone when their time is over; keys go with their messages, refused
//! requests when they are as old.

use chrono::TimeDelta;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::store::{self, partition::Round};

/// One round; what is over age but still open is kept, and told.
pub async fn retain(hub: &Hub) -> Result<Round> {
    let now = hub.clock.now();
    let oldest = now - TimeDelta::days(i64::from(hub.settings.database.retention_days));
    let round = store::partition::maintain(&hub.store, now, oldest).await?;
    if !round.made.is_empty() {
        tracing::info!(made = round.made.len(), "partitions made ahead");
    }
    for name in &round.dropped {
        tracing::info!(name, "partition dropped: retention is over");
    }
    for name in &round.kept {
        tracing::error!(name, "partition is over age, but deliveries in it are still open; it is kept");
    }
    while store::idempotency::forget(hub.store.api(), Tsid::floor(oldest), limits::HOUSEKEEPING_BATCH).await? > 0 {}
    let days = i32::from(hub.settings.database.retention_days);
    while store::sql_intake::forget(hub.store.api(), now, days, limits::HOUSEKEEPING_BATCH).await? > 0 {}
    Ok(round)
}
