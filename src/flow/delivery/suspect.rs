//! Suspect: delivers what a worker was lost with, one at a time. It is claimed alone, so that a delivery that takes its
//! worker with it takes no other with it; and once it was called while its worker lived, it is a delivery like any
//! other.

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::delivery::OutcomeKind;
use crate::store;
use crate::store::delivery::Settle;

use super::call::{call, group_into_requests};
use super::claim::claim_suspect;
use super::load::load;

/// Claims the next suspect that is due and calls it; what is to be settled then. None: none is due.
pub async fn call_next(hub: &Hub, worker: Tsid, shards: &[i16], channels: &[Channel]) -> Result<Option<Vec<Settle>>> {
    let Some((claim, deaths)) = claim_suspect(hub, worker, shards, channels).await? else {
        store::suspect::delete_resolved(hub.store.engine(), shards, None).await?;
        return Ok(None);
    };
    let ready = load(hub, claim).await;
    let mut settles = ready.given_back;
    for request in group_into_requests(ready.held) {
        settles.extend(call(hub, request).await);
    }
    // What was not called proves nothing: it stays apart.
    let not_called = |s: &Settle| s.ended_attempt.as_ref().is_some_and(|t| t.outcome == OutcomeKind::NotCalled);
    Ok(Some(settles.into_iter().map(|s| if not_called(&s) { s.as_suspect(deaths) } else { s }).collect()))
}

/// After a suspect's settle was written: forgets it, unless it stays apart.
pub async fn forget(hub: &Hub, key: (i16, Tsid)) -> Result<()> {
    store::suspect::delete_resolved(hub.store.engine(), &[key.0], Some(key.1)).await?;
    Ok(())
}
