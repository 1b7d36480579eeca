//! Lanes, as people look at them.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::model::lane::Lane;
use crate::model::watermark::ShardLane;

pub struct Depth {
    pub lane: Lane,
    pub depth: i64,
    pub oldest: Option<DateTime<Utc>>,
}

/// The oldest that waits in each of these lanes, at or after the given moment.
pub async fn oldest(
    db: impl Db<'_>,
    places: &[(ShardLane, DateTime<Utc>)],
) -> Result<Vec<(ShardLane, Option<DateTime<Utc>>)>> {
    let rows = sqlx::query_file!(
        "sql/lane/oldest.sql",
        &places.iter().map(|(place, _)| place.0).collect::<Vec<_>>(),
        &places.iter().map(|(place, _)| place.1.0).collect::<Vec<_>>(),
        &places.iter().map(|(_, since)| *since).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| ((r.shard, Lane(r.lane)), r.ready_at)).collect())
}

/// How much waits in each of these lanes, counted up to `most` per shard and lane; empty lanes are left out.
pub async fn depth(db: impl Db<'_>, shards: &[i16], lanes: &[Lane], most: i64) -> Result<Vec<Depth>> {
    let lanes: Vec<i16> = lanes.iter().map(|l| l.0).collect();
    let rows = sqlx::query_file!("sql/lane/depth.sql", shards, most, &lanes).fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| Depth { lane: Lane(r.lane), depth: r.depth, oldest: r.oldest }).collect())
}
