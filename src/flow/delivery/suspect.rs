//! Suspects: deliveries that a lost worker held. Each is claimed and called alone, because its content may have crashed
//! the worker, and other deliveries must not be lost with it. Once a suspect was called and its worker survived, it is
//! a delivery like any other.

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

/// Claims the next suspect that is due and calls it. Returns the settles for the caller to write; None if none is due.
///
/// # Errors
/// `Error::Unavailable` if the database fails; a claimed suspect is taken back when its lease ends.
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
    // A suspect that was not called has proved nothing: it stays a suspect.
    let not_called = |s: &Settle| s.ended_attempt.as_ref().is_some_and(|t| t.outcome == OutcomeKind::NotCalled);
    Ok(Some(settles.into_iter().map(|s| if not_called(&s) { s.as_suspect(deaths) } else { s }).collect()))
}

/// Removes a delivery from the suspects, unless its settle kept it there. Call it after its settle was written.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the suspect is removed later, when none is due.
pub async fn forget(hub: &Hub, key: (i16, Tsid)) -> Result<()> {
    store::suspect::delete_resolved(hub.store.engine(), &[key.0], Some(key.1)).await?;
    Ok(())
}
