//! Keys that sign and verify access tokens, as this process last read them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use tokio::sync::MutexGuard;

use super::lock::lock;
use crate::limits;
use crate::model::access::token::TokenKeys;

/// The keys last read, and the time when an unknown key last made this process read them.
#[derive(Default)]
pub struct KnownTokenKeys {
    keys: RwLock<Arc<TokenKeys>>,
    reread_at: Mutex<DateTime<Utc>>,
    reading: tokio::sync::Mutex<()>,
}

impl KnownTokenKeys {
    /// Returns the keys last read.
    pub fn get(&self) -> Arc<TokenKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the keys by those just read.
    pub fn set(&self, keys: TokenKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Waits for the turn to read keys after a token named a key that this process does not know. A request that waited
    /// here must look again before it reads: the request before it may have read the key.
    pub async fn read_turn(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Returns whether the keys may be read again at `now` because a token names an unknown key: at most once per
    /// `limits::KEYS_READ_EVERY`, so that tokens with made-up key ids do not cause a query each. A true result counts
    /// as the read.
    pub fn may_read_again(&self, now: DateTime<Utc>) -> bool {
        let mut reread_at = lock(&self.reread_at);
        let may = now >= *reread_at + limits::KEYS_READ_EVERY || *reread_at > now;
        if may {
            *reread_at = now;
        }
        may
    }
}
