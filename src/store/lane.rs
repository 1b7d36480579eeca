//! Lanes: how much waits in each, and since when.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::model::lane::Lane;
use crate::model::watermark::ShardLane;

/// The PENDING deliveries of a lane.
pub struct LaneDepth {
    pub lane: Lane,
    /// Number of deliveries, counted up to a limit per shard.
    pub depth: i64,
    /// The oldest `ready_at`.
    pub oldest: Option<DateTime<Utc>>,
}

/// The oldest `ready_at` of PENDING deliveries in each place, at or after the given time; None if there is none.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn oldest_ready(
    db: impl Db<'_>,
    places: &[(ShardLane, DateTime<Utc>)],
) -> Result<Vec<(ShardLane, Option<DateTime<Utc>>)>> {
    let rows = sqlx::query_file!(
        "sql/lane/oldest_ready.sql",
        &places.iter().map(|(place, _)| place.0).collect::<Vec<_>>(),
        &places.iter().map(|(place, _)| place.1.0).collect::<Vec<_>>(),
        &places.iter().map(|(_, since)| *since).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| ((r.shard, Lane(r.lane)), r.ready_at)).collect())
}

/// Number of PENDING deliveries and oldest `ready_at` per lane, counted up to `most` per shard and lane. Empty lanes
/// are left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn depths(db: impl Db<'_>, shards: &[i16], lanes: &[Lane], most: i64) -> Result<Vec<LaneDepth>> {
    let lanes: Vec<i16> = lanes.iter().map(|l| l.0).collect();
    let rows = sqlx::query_file!("sql/lane/depths.sql", shards, most, &lanes).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| LaneDepth { lane: Lane(r.lane), depth: r.depth, oldest: r.oldest }).collect())
}
