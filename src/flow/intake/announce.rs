//! Announce: counts accepted messages and wakes workers, after the commit.

use chrono::{DateTime, Utc};

use crate::hub::Hub;
use crate::model::delivery::Status;
use crate::model::idempotency::Accepted;
use crate::store::message::NewMessageRow;

/// Counts accepted messages, and wakes workers for deliveries and events that are ready, since `now`. Call it after the
/// commit: a worker that looks before the commit finds nothing.
pub fn announce(hub: &Hub, all: &[(&NewMessageRow, &Accepted)], now: DateTime<Utc>) {
    let fresh = || all.iter().filter(|(_, accepted)| !accepted.replayed);
    let new = fresh().count();
    hub.metrics.accepted.with_label_values(&["new"]).inc_by(new as u64);
    count_replayed(hub, all.len() - new);
    let ready = fresh().filter(|(_, accepted)| accepted.status == Status::Pending);
    let ready = ready.flat_map(|(insert, _)| insert.lanes.iter().map(move |lane| ((insert.shard, *lane), now)));
    let events = fresh().filter(|(_, accepted)| accepted.has_subscribers);
    let events = events.map(|(insert, _)| ((insert.shard, insert.webhook_lane), now));
    hub.wake.notify(ready.chain(events));
}

/// Counts messages that got the answer of a stored one.
pub fn count_replayed(hub: &Hub, messages: usize) {
    hub.metrics.accepted.with_label_values(&["replayed"]).inc_by(messages as u64);
}
