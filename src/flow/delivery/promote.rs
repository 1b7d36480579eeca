//! Promote: SCHEDULED deliveries (for later, or for a retry) become PENDING when they are due.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::shutdown::may_die_at;
use crate::store;

/// Position of the promote loop.
#[derive(Debug)]
pub struct Promoter {
    /// Everything due before this time has been promoted.
    mark: DateTime<Utc>,
    /// When everything is looked at again, for rows that committed late.
    deep_at: DateTime<Utc>,
}

impl Default for Promoter {
    fn default() -> Promoter {
        Promoter { mark: DateTime::UNIX_EPOCH, deep_at: DateTime::UNIX_EPOCH }
    }
}

/// Promotes one batch of due deliveries of these shards and wakes the claiming loops. Returns how many were promoted:
/// fewer than `limits::HOUSEKEEPING_BATCH` when none is left.
///
/// # Errors
/// `Error::Unavailable` if the database fails; a batch that committed all the same is found by polling.
pub async fn promote(hub: &Hub, promoter: &mut Promoter, shards: &[i16]) -> Result<usize> {
    let now = hub.clock.now();
    // A mark ahead of now means that the clock was set back.
    if now >= promoter.deep_at || promoter.mark > now {
        promoter.mark = DateTime::UNIX_EPOCH;
        promoter.deep_at = now + TimeDelta::from_std(limits::DEEP_SWEEP_EVERY).unwrap_or_default();
    }
    let batch = limits::HOUSEKEEPING_BATCH;
    let places = store::delivery::promote(hub.store.engine(), shards, promoter.mark, now, batch).await?;
    may_die_at("promote.after_commit");
    hub.metrics.promoted.inc_by(places.len() as u64);
    let promoted = places.len();
    hub.wake.notify(places.into_iter().map(|place| (place, now)));
    if promoted < usize::try_from(batch).unwrap_or(usize::MAX) {
        // A delivery scheduled for a pause shorter than its commit may become visible behind the mark; so the mark
        // stays a little behind now.
        let near = TimeDelta::from_std(limits::NEAR_SWEEP).unwrap_or_default();
        promoter.mark = promoter.mark.max(now - near);
    }
    Ok(promoted)
}
