//! Suspects: deliveries whose worker was lost while it held them. They are set apart and claimed one at a time.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Db;
use super::delivery::{ClaimedDelivery, Settle};
use super::keys::{KeyColumns, key};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryFacts, READY_WHEN_ISOLATED, Status};
use crate::model::lane::Lane;

/// Writes the suspects among these steps, in the transaction that writes the steps.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn upsert(db: impl Db<'_>, settles: &[&Settle]) -> Result<()> {
    let all: Vec<_> = settles.iter().filter_map(|s| Some((s, s.suspect?))).collect();
    let Some(keys) = KeyColumns::of(all.iter().map(|(s, _)| s.key)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/suspect/upsert.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|(s, _)| s.lane.0).collect::<Vec<_>>(),
        &all.iter().map(|(_, apart)| apart.lost_workers).collect::<Vec<_>>(),
        &all.iter().map(|(_, apart)| apart.ready_at).collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Claims for `worker`, for `lease`, the suspect that has been claimable for longest in the most urgent lane. `lanes`:
/// those that this process serves, each with whether it records the beginning of calls there. Returns it with the
/// number of workers lost while they held it; None if no suspect is claimable.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing was claimed, or the lease runs out.
pub async fn claim(
    db: impl Db<'_>,
    shards: &[i16],
    lanes: &[(Lane, bool)],
    now: DateTime<Utc>,
    worker: Tsid,
    lease: Duration,
) -> Result<Option<(ClaimedDelivery, i16)>> {
    let row = sqlx::query_file!(
        "sql/suspect/claim.sql",
        shards,
        &lanes.iter().map(|(lane, _)| lane.0).collect::<Vec<_>>(),
        &lanes.iter().map(|(_, recorded)| *recorded).collect::<Vec<_>>(),
        now,
        worker.0,
        lease.as_secs_f64(),
        Status::Scheduled.as_str(),
        READY_WHEN_ISOLATED,
    )
    .fetch_optional(db)
    .await?;
    let claimed = row.map(|r| {
        let head = DeliveryFacts {
            status: Status::Processing,
            channel: Lane(r.lane).channel(),
            attempt: r.attempt,
            max_attempts: r.max_attempts,
            possibly_sent: r.possibly_sent,
            cancel_requested: r.cancel_requested,
            expires_at: r.expires_at,
            has_fallback: r.has_fallback,
        };
        let claimed = ClaimedDelivery {
            key: key(r.shard, r.message_id, r.no),
            lane: Lane(r.lane),
            head,
            content: r.content,
            ready_at: r.ready_at,
            recipient: r.recipient,
            provider: r.provider,
        };
        (claimed, r.deaths)
    });
    Ok(claimed)
}

/// Whether any suspect may be claimed at `now`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn any_claimable(db: impl Db<'_>, now: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/suspect/any_claimable.sql", now).fetch_one(db).await?)
}

/// Deletes suspects of these shards whose delivery is no longer set apart, of one message or all. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_resolved(db: impl Db<'_>, shards: &[i16], message: Option<Tsid>) -> Result<u64> {
    let query =
        sqlx::query_file!("sql/suspect/delete_resolved.sql", shards, READY_WHEN_ISOLATED, message.map(|id| id.0));
    Ok(query.execute(db).await?.rows_affected())
}
