//! Retain: creates partitions ahead of time and drops those whose retention is over. Other rows are deleted at the same
//! age; a partner's content may be erased earlier, and the audit log has a retention of its own.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::store::hub::HubLock;
use crate::store::partner::RetentionProgress;
use crate::store::{self, chat_message, message, partition::MaintenanceRound};

/// Makes one round of all retention steps. A step that fails is logged and tried again in the next round. Returns what
/// happened to the partitions.
///
/// # Errors
/// `Error::Unavailable` if the partitions could not be maintained.
pub async fn retain(hub: &Hub) -> Result<MaintenanceRound> {
    let (db, now, rows) = (hub.store.api(), hub.clock.now(), limits::HOUSEKEEPING_BATCH);
    let (oldest, days) = (oldest(hub), i32::from(hub.settings.database.retention_days));
    let below = Tsid::floor(oldest);
    // A failed step does not stop the others.
    let round = partitions(hub).await;
    step("contents", wipe_all(hub)).await;
    let judged_since = now - crate::model::access::sign_in_throttle::PERIOD;
    step("failed sign-ins", until_none(|| store::sign_in_failure::delete_old(db, judged_since, rows))).await;
    step("refresh tokens", until_none(|| store::refresh_token::delete_expired(db, now, rows))).await;
    step("idempotency keys", until_none(|| store::idempotency::delete_old(db, below, rows))).await;
    step("hashes of erased keys", until_none(|| store::idempotency::delete_old_erased(db, below, rows))).await;
    step("requests in SQL", until_none(|| store::sql_intake::delete_old_refusals(db, now, days, rows))).await;
    step("paces", store::pace::delete_old(db, now - TimeDelta::days(1))).await;
    step("outages of providers", store::provider::delete_old_outages(db, oldest)).await;
    step("receipts", until_none(|| store::receipt::delete_old(db, oldest, rows))).await;
    step("providers' ids", until_none(|| store::provider_ref::delete_old(db, below, rows))).await;
    step("redrives", store::redrive::delete_finished(db, oldest)).await;
    step("tickets", store::ticket::delete_old(db, now)).await;
    let versions_below = now - limits::CHAT_VERSIONS_KEPT;
    step("former texts of rooms", until_none(|| chat_message::delete_old_versions(db, versions_below, rows))).await;
    step("marks of readers", until_none(|| store::member::delete_old_marks(db, now - limits::READ_MARKS_KEPT, rows)))
        .await;
    step("messages of rooms", delete_old_chat(hub)).await;
    step("events of streams", drop_stream_weeks(hub)).await;
    step("alerts", store::alert::delete_cleared(db, oldest)).await;
    step("endpoints that are paused", disable_long_paused(hub)).await;
    step("months of the audit log", drop_audit_months(hub)).await;
    let forgotten = now - limits::FORMER_EXTERNAL_KEPT;
    step("former ids of deleted users", until_none(|| store::user::forget_external(db, forgotten, rows))).await;
    step("endpoints", store::endpoint::purge(db, now - limits::ENDPOINT_FORGOTTEN)).await;
    round
}

async fn step<T>(step_name: &str, done: impl Future<Output = Result<T>>) {
    if let Err(e) = done.await {
        tracing::warn!(
            what = step_name, error = %e,
            "rows whose retention is over could not be removed; they are removed by the next round"
        );
    }
}

/// Repeats `some` until it returns 0.
async fn until_none<F: Future<Output = Result<u64>>>(some: impl Fn() -> F) -> Result<()> {
    while some().await? > 0 {}
    Ok(())
}

async fn wipe_all(hub: &Hub) -> Result<()> {
    for retained in store::partner::with_retention(hub.store.api()).await? {
        // A failure of one partner does not stop the others.
        if let Err(e) = wipe(hub, &retained).await {
            tracing::warn!(
                partner = %retained.partner_id, error = %e,
                "the content of a partner could not be erased; it is erased by the next round"
            );
        }
    }
    Ok(())
}

/// Deletes messages of rooms that are older than their room, or its partner, keeps them.
async fn delete_old_chat(hub: &Hub) -> Result<()> {
    let (db, now) = (hub.store.api(), hub.clock.now());
    for room in store::room::with_retention(db).await? {
        let below = Tsid::floor(now - TimeDelta::days(i64::from(room.days)));
        let key = (room.shard, room.room_id);
        until_none(|| async move {
            let mut tx = hub.store.begin().await?;
            store::room::lock(&mut tx, key.0, key.1).await?;
            let n = chat_message::delete_old(&mut *tx, key, below, limits::HOUSEKEEPING_BATCH).await?;
            tx.commit().await?;
            Ok(n)
        })
        .await?;
    }
    Ok(())
}

/// Disables endpoints that have been paused for long: deliveries parked for them would keep their partitions for ever.
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
        tracing::info!(name, "a month of the audit log was dropped: its retention is over");
    }
    Ok(())
}

async fn drop_stream_weeks(hub: &Hub) -> Result<()> {
    let oldest = hub.clock.now() - limits::STREAM_EVENTS_KEPT;
    for name in store::partition::drop_stream_weeks(&hub.store, oldest).await? {
        tracing::info!(name, "a week of stream events was dropped: clients that were away for longer begin anew");
    }
    Ok(())
}

fn oldest(hub: &Hub) -> DateTime<Utc> {
    hub.clock.now() - TimeDelta::days(i64::from(hub.settings.database.retention_days))
}

/// Creates partitions ahead of time and drops those whose retention is over. A partition with open deliveries is kept
/// and logged. Returns the names of those created, dropped and kept.
///
/// # Errors
/// `Error::Unavailable` if the database fails; a part may be done.
pub async fn partitions(hub: &Hub) -> Result<MaintenanceRound> {
    let (now, oldest) = (hub.clock.now(), oldest(hub));
    let round = store::partition::maintain(&hub.store, now, oldest).await?;
    if !round.made.is_empty() {
        tracing::info!(made = round.made.len(), "partitions were created ahead of time");
    }
    for name in &round.dropped {
        tracing::info!(name, "a partition was dropped: its retention is over");
    }
    for name in &round.kept {
        tracing::error!(name, "a partition is kept although its retention is over: deliveries in it are not settled");
    }
    Ok(round)
}

/// Erases the content of a partner's messages that are older than the partner's retention. Messages with open
/// deliveries stay and are looked at again.
async fn wipe(hub: &Hub, retained: &RetentionProgress) -> Result<()> {
    let below = Tsid::floor(hub.clock.now() - TimeDelta::days(i64::from(retained.retention_days)));
    let (mut from, mut open_from) = (retained.erased_below, None);
    store::hub::ensure_lock_row(hub.store.api(), HubLock::Retention(retained.partner_id)).await?;
    loop {
        let mut tx = hub.store.begin().await?;
        if !store::hub::try_lock(&mut tx, HubLock::Retention(retained.partner_id)).await? {
            return Ok(tx.rollback().await?);
        }
        let mut rows = message::erase_candidates(
            &mut *tx,
            retained.partner_id,
            retained.shard,
            from,
            below,
            limits::WIPE_MESSAGES,
        )
        .await?;
        // Bounds the deliveries per transaction: one message may have thousands.
        let mut deliveries = 0;
        let within = rows.iter().take_while(|row| {
            deliveries += row.deliveries;
            deliveries <= limits::HOUSEKEEPING_BATCH
        });
        rows.truncate(within.count().max(1));
        open_from = open_from.or(rows.iter().find(|row| row.has_unsettled).map(|row| row.message_id));
        from = rows.last().map_or(below, |last| Tsid(last.message_id.0 + 1));
        let settled: Vec<Tsid> = rows.iter().filter(|row| !row.has_unsettled).map(|row| row.message_id).collect();
        store::receipt::lock_of_messages(&mut tx, retained.shard, &settled).await?;
        let wiped = message::erase(&mut *tx, retained.shard, &settled).await?;
        store::partner::set_erased_below(&mut *tx, retained.partner_id, open_from.unwrap_or(from)).await?;
        tx.commit().await?;
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(
            partner = %retained.partner_id, wiped,
            "the content of messages was erased: its retention is over"
        );
    }
}
