//! Cache of the accounts that were read recently, and of the partners by whose user keys tokens were checked. A change
//! of any partner or key empties it: changes are rare.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::principal::Account;
use crate::model::partner::Partner;

/// The accounts that this process remembers, by client id.
#[derive(Default)]
pub struct Accounts(Mutex<Remembered>);

/// A partner and the keys with which it signs tokens for its users.
pub struct UserDoor {
    pub partner: Arc<Partner>,
    /// Number, key, and the time until which it is valid (`None`: until it is replaced).
    pub keys: Vec<(i16, String, Option<DateTime<Utc>>)>,
}

#[derive(Default)]
struct Remembered {
    by_client: HashMap<String, (DateTime<Utc>, Arc<Account>)>,
    /// `None`: there is no such partner.
    user_doors: HashMap<Tsid, (DateTime<Utc>, Option<Arc<UserDoor>>)>,
    /// Incremented by each `forget`: an account read before it is not remembered after it.
    generation: u64,
}

impl Accounts {
    /// Returns the account of `client_id` if it was read at `since` or later and `forget` was not called after that.
    pub fn get(&self, client_id: &str, since: DateTime<Utc>) -> Option<Arc<Account>> {
        let remembered = lock(&self.0);
        let (read_at, account) = remembered.by_client.get(client_id)?;
        (*read_at >= since).then(|| account.clone())
    }

    /// Returns the present generation. Read it before the account, and pass it to `remember`.
    pub fn generation(&self) -> u64 {
        lock(&self.0).generation
    }

    /// Remembers an account that was read at `read_at`, unless `forget` was called since `generation` was read.
    pub fn remember(&self, account: Arc<Account>, read_at: DateTime<Utc>, generation: u64) {
        let mut remembered = lock(&self.0);
        if remembered.generation == generation {
            remembered.by_client.insert(account.client_id.clone(), (read_at, account));
        }
    }

    /// Returns a partner with its user keys if it was read at `since` or later; the inner None: there is no such
    /// partner.
    pub fn user_door(&self, partner_id: Tsid, since: DateTime<Utc>) -> Option<Option<Arc<UserDoor>>> {
        let remembered = lock(&self.0);
        let (read_at, door) = remembered.user_doors.get(&partner_id)?;
        (*read_at >= since).then(|| door.clone())
    }

    /// Remembers a partner with its user keys, as `remember`.
    pub fn remember_user_door(
        &self,
        partner_id: Tsid,
        door: Option<Arc<UserDoor>>,
        read_at: DateTime<Utc>,
        generation: u64,
    ) {
        let mut remembered = lock(&self.0);
        if remembered.generation == generation {
            // Callers choose the ids that they name.
            if remembered.user_doors.len() >= limits::USER_DOORS_REMEMBERED {
                remembered.user_doors.clear();
            }
            remembered.user_doors.insert(partner_id, (read_at, door));
        }
    }

    /// Forgets all accounts, because a partner or a key changed.
    pub fn forget(&self) {
        let mut remembered = lock(&self.0);
        remembered.generation += 1;
        remembered.by_client.clear();
        remembered.user_doors.clear();
    }
}
