//! Retain: partitions ahead, and gone when their time is over; keys go with their messages, refused requests when they are
//! as old. A partner's content may go earlier than that.

use chrono::TimeDelta;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::store::partner::Retained;
use crate::store::{self, message, partition::Round};

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
    for of in store::partner::with_retention(hub.store.api()).await? {
        wipe(hub, &of).await?;
    }
    while store::refresh_token::forget(hub.store.api(), now, limits::HOUSEKEEPING_BATCH).await? > 0 {}
    while store::idempotency::forget(hub.store.api(), Tsid::floor(oldest), limits::HOUSEKEEPING_BATCH).await? > 0 {}
    let days = i32::from(hub.settings.database.retention_days);
    while store::sql_intake::forget(hub.store.api(), now, days, limits::HOUSEKEEPING_BATCH).await? > 0 {}
    Ok(round)
}

/// Erases what a partner's messages say once they are older than it wants. What is still open stays, and is looked at again.
async fn wipe(hub: &Hub, of: &Retained) -> Result<()> {
    let below = Tsid::floor(hub.clock.now() - TimeDelta::days(i64::from(of.retention_days)));
    let (mut from, mut done_below) = (of.erased_below, None);
    loop {
        let db = hub.store.api();
        let rows = message::wipeable(db, of.partner_id, of.shard, from, below, limits::HOUSEKEEPING_BATCH).await?;
        let Some((last, _)) = rows.last() else { break };
        from = Tsid(last.0 + 1);
        done_below = done_below.or(rows.iter().find(|(_, open)| *open).map(|(id, _)| *id));
        let settled: Vec<Tsid> = rows.into_iter().filter(|(_, open)| !open).map(|(id, _)| id).collect();
        let wiped = message::wipe(db, of.shard, &settled).await?;
        tracing::info!(partner = %of.partner_id, wiped, "content erased: its retention is over");
        store::partner::erased(db, of.partner_id, done_below.unwrap_or(from)).await?;
    }
    Ok(())
}
