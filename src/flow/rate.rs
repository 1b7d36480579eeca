//! A partner's requests, counted against its limit over all processes.

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::model::partner::Partner;
use crate::model::rate::{Taken, chunk, slot};
use crate::store;

/// How a partner stands with its limit.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    pub limit: i32,
    /// In hand here; there may be more.
    pub remaining: i32,
}

/// Counts a request that costs so much; refused when the partner made too many in the last second.
pub async fn spend(hub: &Hub, partner: &Partner, cost: i32) -> Result<Standing> {
    let limit = partner.rate_limit_tps;
    let rate = hub.rate_of(partner.partner_id);
    let too_many = || {
        // A batch's first message was counted with its request.
        let detail = if cost > 1 && cost >= limit {
            let cost = cost + 1;
            format!("this is {cost} messages at once; your limit is {limit} a second: send fewer at once")
        } else {
            format!("your limit is {limit} requests a second; a batch counts each of its messages")
        };
        Err(Error::Limited { reason: "rate_limited", detail, retry_after_s: 1 })
    };
    loop {
        match rate.lease().take(cost, hub.clock.now()) {
            Taken::Yes(remaining) => return Ok(Standing { limit, remaining }),
            Taken::No => return too_many(),
            Taken::Ask => (),
        }
        // One asks for all that wait.
        let _asking = rate.asking.lock().await;
        let now = hub.clock.now();
        match rate.lease().take(cost, now) {
            Taken::Yes(remaining) => return Ok(Standing { limit, remaining }),
            Taken::No => return too_many(),
            Taken::Ask => (),
        }
        let (id, wanted) = (partner.partner_id, chunk(limit, cost));
        let got = store::rate::take(hub.store.api(), id, slot(now), wanted, limit, cost).await?;
        rate.lease().leased(got, cost, now);
        if got == 0 {
            return too_many();
        }
    }
}
