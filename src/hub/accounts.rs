//! Accounts read of late. All of them are forgotten when anything about any of them changes, which is rare.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::model::access::principal::Account;

/// The accounts that this process remembers, by client id.
#[derive(Default)]
pub struct Accounts(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_client: HashMap<String, (DateTime<Utc>, Arc<Account>)>,
    /// Counts the times of forgetting: an account read before one is not remembered after it.
    generation: u64,
}

impl Accounts {
    /// The account of a client, if it was read at `since` or later and nothing changed after that.
    pub fn get(&self, client_id: &str, since: DateTime<Utc>) -> Option<Arc<Account>> {
        let remembered = lock(&self.0);
        let (read_at, account) = remembered.by_client.get(client_id)?;
        (*read_at >= since).then(|| account.clone())
    }

    /// The present generation: asked before an account is read, passed to `remember` after it.
    pub fn generation(&self) -> u64 {
        lock(&self.0).generation
    }

    /// Remembers an account that was read at `read_at`, unless something changed since its generation was asked.
    pub fn remember(&self, account: Arc<Account>, read_at: DateTime<Utc>, generation: u64) {
        let mut remembered = lock(&self.0);
        if remembered.generation == generation {
            remembered.by_client.insert(account.client_id.clone(), (read_at, account));
        }
    }

    /// Forgets all accounts: something about a partner or a key changed.
    pub fn forget(&self) {
        let mut remembered = lock(&self.0);
        remembered.generation += 1;
        remembered.by_client.clear();
    }
}
