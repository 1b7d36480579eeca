//! Sweep: ends what became worthless while it waited where nobody claims.

use chrono::DateTime;

use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::model::channel::OnUnknown;
use crate::model::delivery::{Outcome, next};
use crate::store::{
    self,
    delivery::{Settle, SweepPosition, Waiting},
};

use super::deliver::tell;
use super::webhook::release_next;

/// Where the sweep stands.
#[derive(Debug, Default)]
pub struct Sweeper {
    next: Option<SweepPosition>,
}

/// Looks at one slice; returns how many it ended.
pub async fn sweep(hub: &Hub, sweeper: &mut Sweeper) -> Result<usize> {
    let now = hub.clock.now();
    let from = sweeper.next.unwrap_or((i16::MIN, i16::MIN, DateTime::UNIX_EPOCH));
    let swept = store::delivery::worthless(hub.store.engine(), from, now, limits::HOUSEKEEPING_BATCH).await?;
    sweeper.next = swept.next;
    end(hub, swept.expired, &Outcome::Expired).await
}

/// Ends deliveries that no worker holds; returns how many were still as they were seen.
pub(super) async fn end(hub: &Hub, waiting: Vec<Waiting>, outcome: &Outcome) -> Result<usize> {
    let now = hub.clock.now();
    let mut settles: Vec<Settle> = waiting
        .into_iter()
        .map(|w| Settle {
            key: w.key,
            lane: w.lane,
            head: w.head,
            step: next(&w.head, outcome, &hub.settings.retry.policy(w.head.channel, false), OnUnknown::Retry, now, 0.0),
            provider: None,
            tried: None,
            notice_id: hub.next_id(),
            receipt_due: None,
            apart: None,
            followers: i64::from(w.lane.is_webhook()),
        })
        .collect();
    settles.sort_by_key(|s| s.key);
    let won = store::delivery::settle(hub.store.engine(), &settles, now).await?;
    settles.retain(|s| won.iter().any(|w| w.key == s.key));
    tell(hub, &settles, &won);
    release_next(hub, &settles).await;
    Ok(settles.len())
}
