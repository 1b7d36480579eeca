//! Partners' shares of this process: what it has in hand of each one's request limit, and their turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::rate::Lease;

/// What this process has in hand of partners' request limits.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<Tsid, Arc<Rate>>>);

impl Rates {
    /// The partner's, made when there is none.
    pub fn of(&self, partner_id: Tsid) -> Arc<Rate> {
        lock(&self.0).entry(partner_id).or_default().clone()
    }
}

/// What this process has in hand of one partner's request limit, and whose turn it is to ask for more.
pub struct Rate {
    lease: Mutex<Lease>,
    asking: tokio::sync::Mutex<()>,
    batches: Semaphore,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate {
            lease: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            batches: Semaphore::new(limits::BATCHES_OF_ONE),
        }
    }
}

impl Rate {
    /// What is in hand. Held briefly, never over an await.
    pub fn lease(&self) -> MutexGuard<'_, Lease> {
        lock(&self.lease)
    }

    /// Waits for the turn to ask the database for more: one request asks for all that wait.
    pub async fn asking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.asking.lock().await
    }

    /// Waits for the turn of one of the partner's batches: `limits::BATCHES_OF_ONE` are read and written at the same
    /// time.
    ///
    /// # Errors
    /// Never: the turns are not closed.
    pub(super) async fn batch(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.batches.acquire().await
    }
}
