//! Route: which provider of its channel a delivery goes to, and whether that may be asked now.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::Hub;
use crate::model::delivery::Outcome;
use crate::provider::Account;
use crate::store::delivery::Claimed;

/// None when no provider can take it now.
pub fn choose(hub: &Hub, claimed: &Claimed) -> Option<Arc<Account>> {
    hub.providers.of(claimed.head.channel).first().cloned()
}

/// Leave to make one request. Dropped without an answer, it was not made.
pub struct Pass;

/// Asks for leave right before a request; what to settle instead where there is none.
#[expect(clippy::unused_async, reason = "limits are asked for in the database")]
pub async fn enter(_hub: &Hub, _account: &Account) -> Result<Pass, Outcome> {
    Ok(Pass)
}

impl Pass {
    /// The request was made, and this came of it.
    pub fn answered(self, _hub: &Hub, _outcomes: &[Outcome], _took: Duration) {}
}
