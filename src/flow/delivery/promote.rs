//! Promote: what was scheduled, or waits for its retry, and is due becomes PENDING.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::shutdown::may_die_at;
use crate::store;

/// Where the promoter stands: everything due below the mark was seen to be promoted.
#[derive(Debug)]
pub struct Promoter {
    mark: DateTime<Utc>,
    deep_at: DateTime<Utc>,
}

impl Default for Promoter {
    fn default() -> Promoter {
        Promoter { mark: DateTime::UNIX_EPOCH, deep_at: DateTime::UNIX_EPOCH }
    }
}

/// One batch; returns how many were promoted.
pub async fn promote(hub: &Hub, promoter: &mut Promoter, shards: &[i16]) -> Result<usize> {
    let now = hub.clock.now();
    // A mark ahead of us is one of a clock that was set back.
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
        // What is scheduled now is due later, but for pauses shorter than a commit takes: hence the near look back.
        let near = TimeDelta::from_std(limits::NEAR_SWEEP).unwrap_or_default();
        promoter.mark = promoter.mark.max(now - near);
    }
    Ok(promoted)
}
