//! A partner's requests, counted against its limit over all processes.

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::model::partner::Partner;
use crate::model::rate::{TakeResult, slot};
use crate::store;

/// How a partner stands with its limit.
#[derive(Debug, Clone, Copy)]
pub struct RateStatus {
    pub limit: i32,
    /// Free when last looked, less what was used here since.
    pub remaining: i32,
}

/// Counts a request that costs so much; refused when the partner made too many in the last second.
pub async fn spend(hub: &Hub, partner: &Partner, cost: i32) -> Result<RateStatus> {
    let limit = partner.rate_limit_tps;
    let rate = hub.rates.of(partner.partner_id);
    let answer = |free: Option<i32>| match free {
        Some(remaining) => Ok(RateStatus { limit, remaining }),
        None => {
            let detail = format!("your limit is {limit} requests a second; a batch counts each of its messages");
            Err(Error::Limited { reason: "rate_limited", detail, retry_after_s: 1 })
        }
    };
    let taken = rate.lease().take(cost, limit, hub.clock.now());
    if let TakeResult::Decided(free) = taken {
        return answer(free);
    }
    // One asks for all that wait.
    let _turn = rate.refill_turn().await;
    let now = hub.clock.now();
    let taken = rate.lease().take(cost, limit, now);
    let wanted = match taken {
        TakeResult::Decided(free) => return answer(free),
        TakeResult::NeedsLease(wanted) => wanted,
    };
    let (got, free) =
        store::rate::take_permits(hub.store.api(), partner.partner_id, slot(now), wanted, limit, cost).await?;
    let left = rate.lease().add_lease(got, free, cost, now);
    answer(left)
}
