//! Reap: takes back deliveries whose lease is over because their worker was lost. They are found, judged and written in
//! one transaction under row locks: a worker that settles at this moment either comes first or loses its fence.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::OnUnknown;
use crate::model::delivery::{BeginRecord, transition_after_lost_worker};
use crate::shutdown::may_die_at;
use crate::store::{self, delivery::Settle};

use super::settle::{notify_workers, write};
use super::step::attempt_result;
use crate::flow::{channel, fallback};

/// Position of the reap loop.
#[derive(Debug)]
pub struct Reaper {
    /// All leases that ended before this time have been settled; new leases end later.
    mark: DateTime<Utc>,
    /// When everything is looked at again.
    deep_at: DateTime<Utc>,
}

impl Default for Reaper {
    fn default() -> Reaper {
        Reaper { mark: DateTime::UNIX_EPOCH, deep_at: DateTime::UNIX_EPOCH }
    }
}

/// Takes back one batch of deliveries of these shards whose lease is over. Returns how many: fewer than
/// `limits::HOUSEKEEPING_BATCH` when none is left.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn reap(hub: &Hub, reaper: &mut Reaper, shards: &[i16]) -> Result<usize> {
    // Leases run by the database's clock, so the mark does, too.
    let now_there = store::hub::database_time(hub.store.engine()).await?;
    // A mark ahead of now means that the clock was set back.
    if now_there >= reaper.deep_at || reaper.mark > now_there {
        reaper.mark = DateTime::UNIX_EPOCH;
        reaper.deep_at = now_there + TimeDelta::from_std(limits::DEEP_SWEEP_EVERY).unwrap_or_default();
    }
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let overdue =
        store::delivery::lock_expired_leases(&mut tx, shards, reaper.mark, limits::HOUSEKEEPING_BATCH).await?;
    let mut settles = Vec::with_capacity(overdue.len());
    let mut by_worker: BTreeMap<Tsid, usize> = BTreeMap::new();
    for row in overdue {
        // `begins_recorded` comes from the row, as the claiming worker set it: this process's settings may differ.
        // Where beginnings are recorded, an unknown outcome must not lead to a second copy.
        let begun = match (row.begins_recorded, row.has_in_flight_row) {
            (_, true) => BeginRecord::Present,
            (true, false) => BeginRecord::Absent,
            (false, false) => BeginRecord::NotKept,
        };
        let on_unknown = hub.providers.on_unknown(row.head.channel, &hub.settings.retry);
        let on_unknown = if row.begins_recorded { on_unknown.max(OnUnknown::Lookup) } else { on_unknown };
        let deaths = row.lost_workers.saturating_add(1);
        let (outcome, step) = transition_after_lost_worker(&row.head, begun, deaths, on_unknown, now);
        let claimed_at = row.lease_until - TimeDelta::from_std(hub.settings.timing.lease()).unwrap_or_default();
        tracing::debug!(
            delivery = %row.key, attempt = row.head.attempt, worker = %row.worker, status = %step.status,
            "delivery taken back from a lost worker"
        );
        *by_worker.entry(row.worker).or_default() += 1;
        if deaths > 1 {
            tracing::warn!(
                delivery = %row.key, deaths, status = %step.status,
                "another worker was lost while it held only this delivery"
            );
        }
        let settle = Settle {
            key: row.key,
            lane: row.lane,
            head: row.head,
            step,
            // The next attempt asks this provider whether it accepted the lost one.
            provider: row.provider,
            ended_attempt: Some(attempt_result(outcome, row.has_in_flight_row, row.worker, claimed_at, None)),
            event_message_id: hub.next_id(),
            receipt_due: None,
            suspect: None,
            partner_id: None,
            release_limit: channel::followers_unprepared(row.head.channel),
        };
        settles.push(settle.as_suspect(deaths));
    }
    settles.sort_by_key(|s| s.key);
    let (won, made) = write(hub, &mut tx, &settles, now).await?;
    may_die_at("reap.before_commit");
    tx.commit().await?;
    may_die_at("reap.after_commit");
    for (worker, taken_back) in by_worker {
        tracing::warn!(%worker, taken_back, "deliveries taken back from a lost worker");
    }
    hub.metrics.reaped.inc_by(settles.len() as u64);
    notify_workers(hub, &settles, &won);
    fallback::announce(hub, &made);
    channel::release_next(hub, &settles).await;
    if settles.len() < usize::try_from(limits::HOUSEKEEPING_BATCH).unwrap_or(usize::MAX) {
        let slack = TimeDelta::from_std(limits::WATERMARK_SLACK).unwrap_or_default();
        reaper.mark = reaper.mark.max(now_there - slack);
    }
    Ok(settles.len())
}
