//! Channel down: PENDING deliveries of a channel of which every provider is down are replaced by their fallbacks, where
//! their messages name one.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::{DeliveryKey, Status, Transition};
use crate::model::lane::Lane;
use crate::model::watermark::ShardLane;
use crate::store;
use crate::store::delivery::{LanePosition, Settle, UnsettledDelivery};

use super::delivery::settle::notify_workers;
use super::fallback::{self, FallbackReason, FallbackRequest};

/// How far PENDING deliveries of channels that are down were read, by place. A row that cannot be replaced, because its
/// content does not open here, stays behind the mark and does not hide the rows after it.
#[derive(Default)]
pub struct ReadMarks {
    read_up_to: HashMap<ShardLane, LanePosition>,
    /// When all places are read from the beginning again: rows may commit out of order, and a master key may be added.
    restart_at: DateTime<Utc>,
}

/// Replaces one batch of PENDING deliveries of the channels `down` in these shards by their fallbacks, in one
/// transaction. Returns whether there may be more.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit. The marks stay.
pub async fn fall_back(hub: &Hub, marks: &mut ReadMarks, shards: &[i16], down: &[Channel]) -> Result<bool> {
    if down.is_empty() {
        *marks = ReadMarks::default();
        return Ok(false);
    }
    let now = hub.clock.now();
    if now >= marks.restart_at {
        marks.read_up_to.clear();
        marks.restart_at = now + limits::LEAVE_RESTART;
    }
    let places = shards.iter().flat_map(|shard| Lane::all_of(down).into_iter().map(|lane| (*shard, lane)));
    let beginning = (DateTime::UNIX_EPOCH, Tsid(0), 0);
    let places: Vec<_> =
        places.map(|place| (place, marks.read_up_to.get(&place).copied().unwrap_or(beginning))).collect();
    let rows = (limits::HOUSEKEEPING_BATCH / i64::try_from(places.len()).unwrap_or(i64::MAX).max(1)).max(1);
    let mut tx = hub.store.begin_engine().await?;
    let found = store::delivery::lock_pending_with_fallback(&mut tx, &places, rows).await?;
    let mut read: HashMap<ShardLane, (i64, LanePosition)> = HashMap::new();
    for (waiting_row, ready_at) in &found {
        let (count, last) = read.entry((waiting_row.key.shard, waiting_row.lane)).or_insert((0, beginning));
        *count += 1;
        *last = (*ready_at, waiting_row.key.message_id, waiting_row.key.no).max(*last);
    }
    let full = read.values().any(|(count, _)| *count == rows);
    let read = read.into_iter().map(|(place, (_, last))| (place, last));
    let waiting: Vec<UnsettledDelivery> = found.into_iter().map(|(waiting_row, _)| waiting_row).collect();
    // A delivery without a usable fallback does not end.
    let reasons = waiting.iter().map(|w| (w.key, FallbackReason::ChannelDown)).collect();
    let replaceable: HashSet<DeliveryKey> =
        fallback::stand_ins(hub, &mut tx, &reasons).await?.into_iter().map(|s| s.origin.key).collect();
    let mut settles: Vec<Settle> =
        waiting.into_iter().filter(|w| replaceable.contains(&w.key)).map(|w| settle_of(hub, w)).collect();
    if settles.is_empty() {
        marks.read_up_to.extend(read);
        return Ok(full);
    }
    settles.sort_by_key(|s| s.key);
    let won = store::delivery::settle(&mut *tx, &settles.iter().collect::<Vec<_>>(), now).await?;
    let requests: Vec<FallbackRequest> =
        won.iter().map(|w| FallbackRequest { key: w.key, reason: FallbackReason::ChannelDown }).collect();
    let fallbacks = fallback::create(hub, &mut tx, &requests, now).await?;
    tx.commit().await?;
    marks.read_up_to.extend(read);
    settles.retain(|s| won.iter().any(|w| w.key == s.key));
    notify_workers(hub, &settles, &won);
    fallback::announce(hub, &fallbacks);
    Ok(full)
}

fn settle_of(hub: &Hub, UnsettledDelivery { key, lane, head }: UnsettledDelivery) -> Settle {
    let reason = Some(FallbackReason::ChannelDown.as_str());
    let step = Transition { status: Status::Failed, ready_at: None, possibly_sent: false, refund: false, reason };
    Settle {
        key,
        lane,
        head,
        step,
        provider: None,
        ended_attempt: None,
        event_message_id: hub.next_id(),
        receipt_due: None,
        suspect: None,
        partner_id: None,
        release_limit: 0,
    }
}
