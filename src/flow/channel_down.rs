//! Channel down: deliveries that wait for a channel of which every provider is down leave it, where their messages name
//! another.

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

/// How far the deliveries that wait for channels that are down were read, in each place. A row that cannot be replaced
/// (its content cannot be read here) stays behind the mark, and does not hide the rows after it.
#[derive(Default)]
pub struct ReadMarks {
    read_up_to: HashMap<ShardLane, LanePosition>,
    /// All is read from the beginning again then: rows may commit out of order, and a key may have arrived.
    restart_at: DateTime<Utc>,
}

/// Replaces PENDING deliveries of channels that are down by their fallbacks, one batch. Returns whether more may be
/// there.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; nothing is replaced then, and the marks stay where they are.
pub async fn fall_back(hub: &Hub, leaver: &mut ReadMarks, shards: &[i16], down: &[Channel]) -> Result<bool> {
    if down.is_empty() {
        *leaver = ReadMarks::default();
        return Ok(false);
    }
    let now = hub.clock.now();
    if now >= leaver.restart_at {
        leaver.read_up_to.clear();
        leaver.restart_at = now + limits::LEAVE_RESTART;
    }
    let places = shards.iter().flat_map(|shard| Lane::all_of(down).into_iter().map(|lane| (*shard, lane)));
    let beginning = (DateTime::UNIX_EPOCH, Tsid(0), 0);
    let places: Vec<_> =
        places.map(|place| (place, leaver.read_up_to.get(&place).copied().unwrap_or(beginning))).collect();
    let rows = (limits::HOUSEKEEPING_BATCH / i64::try_from(places.len()).unwrap_or(i64::MAX).max(1)).max(1);
    let mut tx = hub.store.begin_engine().await?;
    let found = store::delivery::lock_pending_with_fallback(&mut tx, &places, rows).await?;
    let mut read: HashMap<ShardLane, (i64, LanePosition)> = HashMap::new();
    for (one, ready_at) in &found {
        let (count, last) = read.entry((one.key.shard, one.lane)).or_insert((0, beginning));
        *count += 1;
        *last = (*ready_at, one.key.message_id, one.key.no).max(*last);
    }
    let full = read.values().any(|(count, _)| *count == rows);
    let read = read.into_iter().map(|(place, (_, last))| (place, last));
    let waiting: Vec<UnsettledDelivery> = found.into_iter().map(|(one, _)| one).collect();
    // Nothing is ended whose place cannot be taken.
    let why = waiting.iter().map(|w| (w.key, FallbackReason::ChannelDown)).collect();
    let may: HashSet<DeliveryKey> =
        fallback::stand_ins(hub, &mut tx, &why).await?.into_iter().map(|s| s.origin.key).collect();
    let mut settles: Vec<Settle> = waiting.into_iter().filter(|w| may.contains(&w.key)).map(|w| left(hub, w)).collect();
    if settles.is_empty() {
        leaver.read_up_to.extend(read);
        return Ok(full);
    }
    settles.sort_by_key(|s| s.key);
    let won = store::delivery::settle(&mut *tx, &settles, now).await?;
    let wanted: Vec<FallbackRequest> =
        won.iter().map(|w| FallbackRequest { key: w.key, reason: FallbackReason::ChannelDown }).collect();
    let made = fallback::create(hub, &mut tx, &wanted, now).await?;
    tx.commit().await?;
    leaver.read_up_to.extend(read);
    settles.retain(|s| won.iter().any(|w| w.key == s.key));
    notify_workers(hub, &settles, &won);
    fallback::announce(hub, &made);
    Ok(full)
}

fn left(hub: &Hub, UnsettledDelivery { key, lane, head }: UnsettledDelivery) -> Settle {
    let reason = Some(FallbackReason::ChannelDown.as_str());
    let step = Transition { status: Status::Failed, ready_at: None, possibly_sent: false, refund: false, reason };
    Settle {
        key,
        lane,
        head,
        step,
        provider: None,
        ended_attempt: None,
        webhook_message_id: hub.next_id(),
        receipt_due: None,
        suspect: None,
        release_limit: 0,
    }
}
