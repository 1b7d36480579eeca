//! Partners' request limits: the requests that this process leased from each limit, and the turns to lease more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::rate::RateLease;

/// By partner, the leased part of its request limit.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<Tsid, Arc<PartnerRate>>>);

impl Rates {
    /// Returns the partner's rate; an empty one is made if there is none.
    pub fn of(&self, partner_id: Tsid) -> Arc<PartnerRate> {
        lock(&self.0).entry(partner_id).or_default().clone()
    }
}

/// The leased part of one partner's request limit, and the turns of those that lease more.
pub struct PartnerRate {
    lease: Mutex<RateLease>,
    refill_turn: tokio::sync::Mutex<()>,
    batches: Semaphore,
}

impl Default for PartnerRate {
    fn default() -> PartnerRate {
        PartnerRate {
            lease: Mutex::default(),
            refill_turn: tokio::sync::Mutex::default(),
            batches: Semaphore::new(limits::BATCHES_OF_ONE),
        }
    }
}

impl PartnerRate {
    /// Locks the lease. Hold it briefly, never across an await.
    pub fn lease(&self) -> MutexGuard<'_, RateLease> {
        lock(&self.lease)
    }

    /// Waits for the turn to lease more from the database: one request leases for all that wait.
    pub async fn refill_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.refill_turn.lock().await
    }

    /// Waits for a permit of one of the partner's batches: `limits::BATCHES_OF_ONE` are read and written at the same
    /// time.
    ///
    /// # Errors
    /// Never: the semaphore is not closed.
    pub(super) async fn batch_turn(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.batches.acquire().await
    }
}
