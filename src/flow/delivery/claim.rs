//! Claim: a worker takes deliveries for the time of a lease. The claim increments the attempt number before any call
//! can happen; this number fences the settle. The provider of each delivery is chosen at once.

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::lane::Lane;
use crate::model::watermark::PlannedClaim;
use crate::shutdown::may_die_at;
use crate::store;
use crate::store::delivery::{ClaimRequest, ClaimedDelivery};
use crate::telemetry::observe;

use super::route;

/// The worker that holds deliveries, and since when.
#[derive(Debug, Clone, Copy)]
pub struct LeaseHolder {
    pub(super) worker: Tsid,
    pub(super) claimed_at: DateTime<Utc>,
    /// Taken before the claim was sent, so the lease began at this instant or later.
    pub(super) since: Instant,
}

/// Claimed deliveries, not yet loaded.
pub struct Claim {
    /// The claimed deliveries.
    pub rows: Vec<ClaimedDelivery>,
    /// The provider of each row; chosen at once, so that no other claim counts on the same room.
    pub(super) routes: Vec<route::Route>,
    pub(super) holder: LeaseHolder,
}

/// Claims up to `most` deliveries for `worker` from the places of `looks`, and reserves the provider of each. All looks
/// are of one group of channels (`Channel::calls_partner_servers`). Rows locked by others are skipped, so fewer may
/// return although more wait.
///
/// # Errors
/// `Error::Unavailable` if the database fails. Deliveries that were claimed all the same are taken back by the reaper.
pub async fn claim(hub: &Hub, worker: Tsid, looks: &[PlannedClaim], most: i64) -> Result<Claim> {
    let holder = LeaseHolder { worker, claimed_at: hub.clock.now(), since: Instant::now() };
    let ask = |look: &PlannedClaim| ClaimRequest {
        shard: look.place.0,
        lane: look.place.1,
        watermark: look.from_ready_at,
        limit: look.rows,
        begins_recorded: hub.providers.on_unknown(look.place.1.channel(), &hub.settings.retry) > OnUnknown::Retry,
    };
    let asks: Vec<ClaimRequest> = looks.iter().map(ask).collect();
    let Some(channel) = looks.first().map(|look| look.place.1.channel()) else {
        return Ok(Claim { rows: Vec::new(), routes: Vec::new(), holder });
    };
    // One pool serves all looks: they are of one group of channels.
    let db = hub.store.pool_for(channel);
    let rows = store::delivery::claim(db, &asks, most, worker, hub.settings.timing.lease()).await?;
    may_die_at("claim.after_commit");
    observe(&hub.metrics.claim_seconds, &[], holder.since.elapsed());
    hub.metrics.claim_rows.with_label_values::<&str>(&[]).observe(rows.len() as f64);
    for row in &rows {
        let waited = (holder.claimed_at - row.ready_at).to_std().unwrap_or_default();
        observe(&hub.metrics.queue_wait_seconds, &[row.lane.priority().as_str()], waited);
        hub.metrics.claimed.with_label_values(&[row.head.channel.as_str()]).inc();
    }
    let routes = rows.iter().map(|row| route::choose(hub, row)).collect();
    Ok(Claim { rows, routes, holder })
}

/// Claims one suspect of these channels for `worker`: the one that has waited longest in the most urgent lane. Returns
/// it with the number of workers that were lost while they held it; None if no suspect is due.
///
/// # Errors
/// `Error::Unavailable` if the database fails. A suspect that was claimed all the same is taken back by the reaper.
pub async fn claim_suspect(
    hub: &Hub,
    worker: Tsid,
    shards: &[i16],
    channels: &[Channel],
) -> Result<Option<(Claim, i16)>> {
    let holder = LeaseHolder { worker, claimed_at: hub.clock.now(), since: Instant::now() };
    let begins_recorded = |lane: Lane| hub.providers.on_unknown(lane.channel(), &hub.settings.retry) > OnUnknown::Retry;
    let lanes: Vec<(Lane, bool)> =
        Lane::all_of(channels).into_iter().map(|lane| (lane, begins_recorded(lane))).collect();
    let lease = hub.settings.timing.lease();
    let claimed = store::suspect::claim(hub.store.engine(), shards, &lanes, holder.claimed_at, worker, lease).await?;
    let Some((row, deaths)) = claimed else { return Ok(None) };
    may_die_at("claim.after_commit");
    hub.metrics.claimed.with_label_values(&[row.head.channel.as_str()]).inc();
    let routes = vec![route::choose(hub, &row)];
    Ok(Some((Claim { rows: vec![row], routes, holder }, deaths)))
}
