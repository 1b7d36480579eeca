//! Sweep: ends deliveries that expired while they waited where no worker claims.

use chrono::DateTime;

use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::model::delivery::Outcome;
use crate::store::{self, delivery::SweepPosition};

use super::settle::end_waiting;

/// Position of the sweep.
#[derive(Debug, Default)]
pub struct Sweeper {
    next: Option<SweepPosition>,
}

/// Looks at one slice and ends the expired deliveries in it; returns how many ended.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the slice is looked at again after a full round.
pub async fn sweep(hub: &Hub, sweeper: &mut Sweeper) -> Result<usize> {
    let now = hub.clock.now();
    let from = sweeper.next.unwrap_or((i16::MIN, i16::MIN, DateTime::UNIX_EPOCH));
    let swept = store::delivery::expired_pending(hub.store.engine(), from, now, limits::HOUSEKEEPING_BATCH).await?;
    sweeper.next = swept.next;
    end_waiting(hub, swept.expired, &Outcome::Expired).await
}
