//! The keys that sign and verify access tokens, as this process last read them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use tokio::sync::MutexGuard;

use super::lock::lock;
use crate::limits;
use crate::model::access::token::TokenKeys;

/// The keys last read, and when an unknown key last made this process read them.
#[derive(Default)]
pub struct KnownKeys {
    keys: RwLock<Arc<TokenKeys>>,
    reread_at: Mutex<DateTime<Utc>>,
    reading: tokio::sync::Mutex<()>,
}

impl KnownKeys {
    /// The keys last read.
    pub fn get(&self) -> Arc<TokenKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the keys by those just read.
    pub fn set(&self, keys: TokenKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Waits for the turn to read keys that a token names and this process does not know. Requests that come meanwhile
    /// wait here, and look again before they read.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Whether the keys may be read again at `now` because a token names an unknown one; true at most once in
    /// `limits::KEYS_READ_EVERY`, so that made-up key ids do not make this process ask the database for each.
    pub fn may_read_again(&self, now: DateTime<Utc>) -> bool {
        let mut reread_at = lock(&self.reread_at);
        let may = now >= *reread_at + limits::KEYS_READ_EVERY || *reread_at > now;
        if may {
            *reread_at = now;
        }
        may
    }
}
