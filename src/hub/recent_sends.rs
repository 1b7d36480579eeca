//! Messages of rooms that were sent lately, by their tempIds. One that is sent again is looked for before it is
//! written: its key would refuse it, too, but at the cost of the whole group and of an error in the server's log.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;
use std::sync::Mutex;

use super::lock::lock;
use crate::limits;
use crate::store::chat_message::NewChatMessage;

/// Hashes of rooms, senders and tempIds: the newest ones, and those before them. When the former are many, they take
/// the place of the latter, which are forgotten.
#[derive(Default)]
pub struct RecentSends(Mutex<(HashSet<u64>, HashSet<u64>)>);

impl RecentSends {
    /// Notes a message. Returns whether it may have been sent before: another one can have its hash.
    pub fn note(&self, message: &NewChatMessage) -> bool {
        let Some(temp_id) = &message.temp_id else { return false };
        let mut hasher = DefaultHasher::new();
        (message.room_id, message.sender_id, temp_id).hash(&mut hasher);
        let mut sent = lock(&self.0);
        let (newest, before) = &mut *sent;
        let is_new = newest.insert(hasher.finish());
        let is_known = !is_new || before.contains(&hasher.finish());
        if newest.len() >= limits::RECENT_SENDS {
            *before = mem::take(newest);
        }
        is_known
    }
}
