//! Rate: counts a partner's requests against its limit, over all processes.

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::model::partner::Partner;
use crate::model::rate::{TakeResult, slot};
use crate::store;

/// The use of a partner's limit, for the response headers.
#[derive(Debug, Clone, Copy)]
pub struct RateStatus {
    /// Requests a second that the partner may make.
    pub limit: i32,
    /// Requests free when last read from the database, less those used here since.
    pub remaining: i32,
}

/// Counts a request against the partner's limit. `cost` is the number of messages in it. Answers from the leased part
/// of the limit if possible, otherwise one request leases for all that wait.
///
/// # Errors
/// `Error::Limited` if the partner made too many requests in the last second. `Error::Unavailable`
/// if the database fails.
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
    // One request leases for all that wait.
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
