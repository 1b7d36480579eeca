//! Cache of the users that were read recently, with the sign-ins of theirs that still stand. A change of a user removes
//! that user alone, here and by a notification in every other process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::user::User;

/// The users that this process remembers.
#[derive(Default)]
pub struct Users(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_id: HashMap<Tsid, Known>,
    /// User ids by partner and external id.
    by_external: HashMap<(Tsid, String), Tsid>,
    /// Incremented by each removal: a user read before it is not remembered after it.
    generation: u64,
}

struct Known {
    read_at: DateTime<Utc>,
    user: Arc<User>,
    /// Whether each sign-in of the user that was asked for still stands, and when that was read.
    sign_ins: HashMap<Tsid, (bool, DateTime<Utc>)>,
}

impl Users {
    /// Returns a user that was read at `since` or later, and whether its sign-in `sid` still stands. None if that is
    /// not known here.
    pub fn get(
        &self,
        partner_id: Tsid,
        user_id: Tsid,
        sid: Option<Tsid>,
        since: DateTime<Utc>,
    ) -> Option<(Arc<User>, bool)> {
        let remembered = lock(&self.0);
        let known = remembered.by_id.get(&user_id)?;
        let stands = match sid {
            Some(sid) => known.sign_ins.get(&sid).filter(|(_, read_at)| *read_at >= since)?.0,
            None => true,
        };
        (known.read_at >= since && known.user.partner_id == partner_id).then(|| (known.user.clone(), stands))
    }

    /// Returns a user by its partner's id of it, if it was read at `since` or later.
    pub fn get_external(&self, partner_id: Tsid, external_id: &str, since: DateTime<Utc>) -> Option<Arc<User>> {
        let remembered = lock(&self.0);
        let user_id = remembered.by_external.get(&(partner_id, external_id.to_owned()))?;
        let known = remembered.by_id.get(user_id)?;
        (known.read_at >= since && known.user.external_id.as_deref() == Some(external_id)).then(|| known.user.clone())
    }

    /// Returns the present generation. Read it before the user, and pass it to `remember`.
    pub fn generation(&self) -> u64 {
        lock(&self.0).generation
    }

    /// Remembers a user that was read at `read_at`, and whether one of its sign-ins stands, unless any user was removed
    /// since `generation` was read.
    pub fn remember(&self, user: Arc<User>, sign_in: Option<(Tsid, bool)>, read_at: DateTime<Utc>, generation: u64) {
        let mut remembered = lock(&self.0);
        if remembered.generation != generation {
            return;
        }
        if remembered.by_id.len() >= limits::USERS_REMEMBERED {
            remembered.by_id.clear();
            remembered.by_external.clear();
        }
        if let Some(external_id) = &user.external_id {
            remembered.by_external.insert((user.partner_id, external_id.clone()), user.user_id);
        }
        let user_id = user.user_id;
        let mut sign_ins = remembered.by_id.remove(&user_id).map(|known| known.sign_ins).unwrap_or_default();
        sign_ins.retain(|_, (_, at)| *at >= read_at - limits::USER_KEPT);
        sign_ins.extend(sign_in.map(|(sid, stands)| (sid, (stands, read_at))));
        remembered.by_id.insert(user_id, Known { read_at, user, sign_ins });
    }

    /// Remembers that a known user was seen at `at`.
    pub fn saw(&self, user_id: Tsid, at: DateTime<Utc>) {
        if let Some(known) = lock(&self.0).by_id.get_mut(&user_id) {
            known.user = Arc::new(User { last_seen_at: Some(at), ..User::clone(&known.user) });
        }
    }

    /// Forgets a user, because it or one of its sign-ins changed.
    pub fn forget(&self, user_id: Tsid) {
        let mut remembered = lock(&self.0);
        remembered.generation += 1;
        if let Some(Known { user, .. }) = remembered.by_id.remove(&user_id)
            && let Some(external_id) = &user.external_id
        {
            remembered.by_external.remove(&(user.partner_id, external_id.clone()));
        }
    }

    /// Forgets all users, because notifications may have been missed.
    pub fn forget_all(&self) {
        let mut remembered = lock(&self.0);
        remembered.generation += 1;
        remembered.by_id.clear();
        remembered.by_external.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::user::sample;

    fn user(id: i64, external_id: &str) -> Arc<User> {
        Arc::new(User { user_id: Tsid(id), partner_id: Tsid(1), external_id: Some(external_id.into()), ..sample() })
    }

    #[test]
    fn sign_ins_of_one_user_are_remembered_beside_each_other() {
        let (users, at) = (Users::default(), DateTime::UNIX_EPOCH);
        let later = at + limits::USER_KEPT;
        users.remember(user(1, "u-1"), Some((Tsid(8), true)), at, users.generation());
        users.remember(user(1, "u-1"), Some((Tsid(9), false)), later, users.generation());
        let stands = |sid, since| users.get(Tsid(1), Tsid(1), Some(Tsid(sid)), since).map(|known| known.1);
        assert_eq!((stands(8, at), stands(9, at)), (Some(true), Some(false)));
        assert_eq!((stands(8, later), stands(9, later)), (None, Some(false)), "each as old as its own read");
    }

    #[test]
    fn forgotten_user_is_gone_and_others_stay() {
        let (users, at) = (Users::default(), DateTime::UNIX_EPOCH);
        for n in 1..=2 {
            users.remember(user(n, &format!("u-{n}")), Some((Tsid(9), true)), at, users.generation());
        }
        let before = users.generation();
        users.forget(Tsid(1));
        assert!(users.get(Tsid(1), Tsid(1), None, at).is_none() && users.get_external(Tsid(1), "u-1", at).is_none());
        assert!(users.get_external(Tsid(1), "u-2", at).is_some());
        assert_eq!(users.get(Tsid(1), Tsid(2), Some(Tsid(9)), at).map(|known| known.1), Some(true));
        assert!(users.get(Tsid(1), Tsid(2), Some(Tsid(8)), at).is_none(), "another sign-in was not asked for");
        assert!(users.get(Tsid(3), Tsid(2), None, at).is_none(), "another partner's");
        users.remember(user(1, "u-1"), None, at, before);
        assert!(users.get(Tsid(1), Tsid(1), None, at).is_none(), "read before it was forgotten");
    }
}
