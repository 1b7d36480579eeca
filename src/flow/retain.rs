//! Retain: partitions ahead, and gone when their time is over; keys go with their messages, refused requests when they are
//! as old. A partner's content may go earlier than that, the audit log later.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::store::hub::HubLock;
use crate::store::partner::RetentionProgress;
use crate::store::{self, message, partition::MaintenanceRound};

/// One round of all.
pub async fn retain(hub: &Hub) -> Result<MaintenanceRound> {
    let (db, now, rows) = (hub.store.api(), hub.clock.now(), limits::HOUSEKEEPING_BATCH);
    let (oldest, days) = (oldest(hub), i32::from(hub.settings.database.retention_days));
    let below = Tsid::floor(oldest);
    // One step's trouble is not the others'.
    let round = partitions(hub).await;
    step("contents", wipe_all(hub)).await;
    let judged_since = now - crate::model::access::sign_in_throttle::PERIOD;
    step("failed sign-ins", until_none(|| store::sign_in_failure::delete_old(db, judged_since, rows))).await;
    step("refresh tokens", until_none(|| store::refresh_token::delete_expired(db, now, rows))).await;
    step("idempotency keys", until_none(|| store::idempotency::delete_old(db, below, rows))).await;
    step("hashes of erased keys", until_none(|| store::idempotency::delete_old_erased(db, below, rows))).await;
    step("requests in SQL", until_none(|| store::sql_intake::delete_old_refusals(db, now, days, rows))).await;
    step("paces", store::pace::delete_old(db, now - TimeDelta::days(1))).await;
    step("providers' holds", store::provider::delete_old_outages(db, oldest)).await;
    step("receipts", until_none(|| store::receipt::delete_old(db, oldest, rows))).await;
    step("providers' ids", until_none(|| store::provider_ref::delete_old(db, below, rows))).await;
    step("redrives", store::redrive::delete_finished(db, oldest)).await;
    step("alerts", store::alert::delete_cleared(db, oldest)).await;
    step("endpoints that are paused", disable_long_paused(hub)).await;
    step("months of the audit log", drop_audit_months(hub)).await;
    step("endpoints", store::endpoint::purge(db, now - limits::ENDPOINT_FORGOTTEN)).await;
    round
}

async fn step<T>(what: &str, done: impl Future<Output = Result<T>>) {
    if let Err(e) = done.await {
        tracing::warn!(what, error = %e, "what is over age could not be removed; it is tried again");
    }
}

/// Again and again, until nothing is left to do.
async fn until_none<F: Future<Output = Result<u64>>>(some: impl Fn() -> F) -> Result<()> {
    while some().await? > 0 {}
    Ok(())
}

async fn wipe_all(hub: &Hub) -> Result<()> {
    for of in store::partner::with_retention(hub.store.api()).await? {
        // One partner's trouble is not the others'.
        if let Err(e) = wipe(hub, &of).await {
            tracing::warn!(partner = %of.partner_id, error = %e, "content could not be erased; it is tried again");
        }
    }
    Ok(())
}

/// Or what waits for it would keep its partition for ever.
async fn disable_long_paused(hub: &Hub) -> Result<()> {
    for endpoint_id in store::endpoint::paused_since(hub.store.api(), hub.clock.now() - limits::ENDPOINT_PAUSED).await?
    {
        super::channel::endpoint_health::disable(hub, endpoint_id, "paused", None).await?;
    }
    Ok(())
}

async fn drop_audit_months(hub: &Hub) -> Result<()> {
    let days = i64::from(hub.settings.database.audit_retention_days);
    let dropped = store::partition::drop_audit_months(&hub.store, hub.clock.now() - TimeDelta::days(days)).await?;
    for name in dropped {
        tracing::info!(name, "month of the audit log dropped: its retention is over");
    }
    Ok(())
}

fn oldest(hub: &Hub) -> DateTime<Utc> {
    hub.clock.now() - TimeDelta::days(i64::from(hub.settings.database.retention_days))
}

/// Partitions ahead, and gone when over age; what is over age but still open is kept, and told.
pub async fn partitions(hub: &Hub) -> Result<MaintenanceRound> {
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
async fn wipe(hub: &Hub, of: &RetentionProgress) -> Result<()> {
    let below = Tsid::floor(hub.clock.now() - TimeDelta::days(i64::from(of.retention_days)));
    let (mut from, mut open_from) = (of.erased_below, None);
    store::hub::ensure_lock_row(hub.store.api(), HubLock::Retention(of.partner_id)).await?;
    loop {
        let mut tx = hub.store.begin().await?;
        if !store::hub::try_lock(&mut tx, HubLock::Retention(of.partner_id)).await? {
            return Ok(tx.rollback().await?);
        }
        let mut rows =
            message::erase_candidates(&mut *tx, of.partner_id, of.shard, from, below, limits::WIPE_MESSAGES).await?;
        // A statement is to end in time, and one message may have thousands of deliveries.
        let mut deliveries = 0;
        let within = rows.iter().take_while(|row| {
            deliveries += row.deliveries;
            deliveries <= limits::HOUSEKEEPING_BATCH
        });
        rows.truncate(within.count().max(1));
        open_from = open_from.or(rows.iter().find(|row| row.has_unsettled).map(|row| row.message_id));
        from = rows.last().map_or(below, |last| Tsid(last.message_id.0 + 1));
        let settled: Vec<Tsid> = rows.iter().filter(|row| !row.has_unsettled).map(|row| row.message_id).collect();
        store::receipt::lock_of_messages(&mut tx, of.shard, &settled).await?;
        let wiped = message::erase(&mut *tx, of.shard, &settled).await?;
        store::partner::set_erased_below(&mut *tx, of.partner_id, open_from.unwrap_or(from)).await?;
        tx.commit().await?;
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(partner = %of.partner_id, wiped, "content erased: its retention is over");
    }
}
