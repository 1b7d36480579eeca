//! Retain: partitions ahead, and gone when their time is over; keys go with their messages, refused requests when they are
//! as old. A partner's content may go earlier than that.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::store::partner::Retained;
use crate::store::{self, message, partition::Round};

/// One round of all.
pub async fn retain(hub: &Hub) -> Result<Round> {
    let now = hub.clock.now();
    let round = partitions(hub).await?;
    for of in store::partner::with_retention(hub.store.api()).await? {
        // One partner's trouble is not the others'.
        if let Err(e) = wipe(hub, &of).await {
            tracing::warn!(partner = %of.partner_id, error = %e, "content could not be erased; it is tried again");
        }
    }
    while store::refresh_token::forget(hub.store.api(), now, limits::HOUSEKEEPING_BATCH).await? > 0 {}
    let oldest = Tsid::floor(oldest(hub));
    while store::idempotency::forget(hub.store.api(), oldest, limits::HOUSEKEEPING_BATCH).await? > 0 {}
    let days = i32::from(hub.settings.database.retention_days);
    while store::sql_intake::forget(hub.store.api(), now, days, limits::HOUSEKEEPING_BATCH).await? > 0 {}
    store::provider::forget_holds(hub.store.api(), self::oldest(hub)).await?;
    while store::receipt::forget(hub.store.api(), self::oldest(hub), limits::HOUSEKEEPING_BATCH).await? > 0 {}
    store::redrive::forget(hub.store.api(), self::oldest(hub)).await?;
    store::alert::forget(hub.store.api(), self::oldest(hub)).await?;
    // Or what waits for it would keep its partition for ever.
    for endpoint_id in store::endpoint::abandoned(hub.store.api(), now - limits::ENDPOINT_PAUSED).await? {
        super::webhook::disable(hub, endpoint_id, "paused", None).await?;
    }
    store::endpoint::purge(hub.store.api(), now - limits::ENDPOINT_FORGOTTEN).await?;
    Ok(round)
}

fn oldest(hub: &Hub) -> DateTime<Utc> {
    hub.clock.now() - TimeDelta::days(i64::from(hub.settings.database.retention_days))
}

/// Partitions ahead, and gone when over age; what is over age but still open is kept, and told.
pub async fn partitions(hub: &Hub) -> Result<Round> {
    let (now, oldest) = (hub.clock.now(), oldest(hub));
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
    Ok(round)
}

/// Erases what a partner's messages say once they are older than it wants. What is still open stays, and is looked at again.
async fn wipe(hub: &Hub, of: &Retained) -> Result<()> {
    let below = Tsid::floor(hub.clock.now() - TimeDelta::days(i64::from(of.retention_days)));
    let (mut from, mut open_from) = (of.erased_below, None);
    loop {
        let mut tx = hub.store.begin().await?;
        if !store::partner::retaining(&mut tx, of.partner_id).await? {
            return Ok(tx.rollback().await?);
        }
        let mut rows = message::wipeable(&mut *tx, of.partner_id, of.shard, from, below, limits::WIPE_MESSAGES).await?;
        // A statement is to end in time, and one message may have thousands of deliveries.
        let mut deliveries = 0;
        let within = rows.iter().take_while(|row| {
            deliveries += row.deliveries;
            deliveries <= limits::HOUSEKEEPING_BATCH
        });
        rows.truncate(within.count().max(1));
        open_from = open_from.or(rows.iter().find(|row| row.open).map(|row| row.message_id));
        from = rows.last().map_or(below, |last| Tsid(last.message_id.0 + 1));
        let settled: Vec<Tsid> = rows.iter().filter(|row| !row.open).map(|row| row.message_id).collect();
        let wiped = message::wipe(&mut *tx, of.shard, &settled).await?;
        store::partner::erased(&mut *tx, of.partner_id, open_from.unwrap_or(from)).await?;
        tx.commit().await?;
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(partner = %of.partner_id, wiped, "content erased: its retention is over");
    }
}
