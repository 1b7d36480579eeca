//! Make: users that a partner names for the first time are made, many at once.

use std::collections::HashSet;

use crate::crypt;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::user::{default_nickname, is_external_id, user_code};
use crate::store::user::{self, FoundUser, NewExternalUser, WantedUser};

/// Finds users by the names that their partners have for them, and makes those that are missing. A name is the
/// partner's own id of the user, or the user's id. The nickname of a new user is its external id. Returns one result
/// for each of `wanted`, in order; None: the name cannot be one of a user (see `model::user::is_external_id`).
///
/// # Errors
/// `Error::Unavailable` if the database fails; some users may be made. `Error::Busy` if other processes make the same
/// users at the same moment, again and again.
pub async fn find_or_create(hub: &Hub, wanted: &[WantedUser]) -> Result<Vec<Option<FoundUser>>> {
    let db = hub.store.engine();
    let mut found = user::find(db, wanted).await?;
    for _ in 0..limits::USER_ROUNDS {
        let missing: HashSet<&WantedUser> = wanted
            .iter()
            .zip(&found)
            .filter(|(wanted, found)| found.is_none() && is_external_id(&wanted.name))
            .map(|(wanted, _)| wanted)
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let new: Vec<NewExternalUser> = missing.into_iter().map(|wanted| new_user(hub, wanted)).collect();
        user::insert_external(db, &new, hub.clock.now()).await?;
        found = user::find(db, wanted).await?;
    }
    match wanted.iter().zip(&found).any(|(wanted, found)| found.is_none() && is_external_id(&wanted.name)) {
        true => Err(Error::Busy("users could not be made; repeat soon")),
        false => Ok(found),
    }
}

fn new_user(hub: &Hub, wanted: &WantedUser) -> NewExternalUser {
    NewExternalUser {
        shard: wanted.shard,
        partner_id: wanted.partner_id,
        external_id: wanted.name.clone(),
        user_id: hub.next_id(),
        nickname: default_nickname(&wanted.name),
        external_hash: external_hash(hub, wanted.partner_id, &wanted.name),
        user_code: new_code(),
    }
}

/// A new random user code.
pub fn new_code() -> String {
    let [a, b, c, d, e, ..] = crypt::random();
    user_code([a, b, c, d, e])
}

/// The keyed hash of a partner's own id of a user, which stays when the user is deleted.
pub fn external_hash(hub: &Hub, partner_id: Tsid, external_id: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, format!("user|{partner_id}|{external_id}").as_bytes())
}
