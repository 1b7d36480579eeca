//! Suspects: deliveries whose worker was lost while it held them.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Db;
use super::delivery::{Claimed, Settle};
use super::keys::{Keys, key};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::{DeliveryFacts, READY_WHEN_ISOLATED, Status};
use crate::model::lane::Lane;

/// Writes those of these steps that set their delivery apart, in the transaction that writes the steps.
pub async fn put(db: impl Db<'_>, settles: &[&Settle]) -> Result<()> {
    let all: Vec<_> = settles.iter().filter_map(|s| Some((s, s.apart?))).collect();
    let Some(keys) = Keys::of(all.iter().map(|(s, _)| s.key)) else { return Ok(()) };
    sqlx::query_file!(
        "sql/suspect/put.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        &all.iter().map(|(s, _)| s.lane.0).collect::<Vec<_>>(),
        &all.iter().map(|(_, apart)| apart.deaths).collect::<Vec<_>>(),
        &all.iter().map(|(_, apart)| apart.ready_at).collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Claims the suspect that may be claimed for longest, for `worker`, for `lease`; with how many workers were lost while they
/// held it. `lanes`: those that this process serves, each with whether beginnings of calls are recorded there.
pub async fn claim(
    db: impl Db<'_>,
    shards: &[i16],
    lanes: &[(Lane, bool)],
    now: DateTime<Utc>,
    worker: Tsid,
    lease: Duration,
) -> Result<Option<(Claimed, i16)>> {
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
        let claimed = Claimed {
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

/// Whether any may be claimed.
pub async fn any_due(db: impl Db<'_>, now: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/suspect/any_due.sql", now).fetch_one(db).await?)
}

/// Forgets those that are none any more, of one message or all.
pub async fn forget(db: impl Db<'_>, shards: &[i16], message: Option<Tsid>) -> Result<u64> {
    let query = sqlx::query_file!("sql/suspect/forget.sql", shards, READY_WHEN_ISOLATED, message.map(|id| id.0));
    Ok(query.execute(db).await?.rows_affected())
}
