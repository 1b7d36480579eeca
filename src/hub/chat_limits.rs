//! How often users write, and how much is written in a room, in this process.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::bucket::Buckets;

/// A limit for each user, or for each room.
pub struct ChatLimit(Mutex<Buckets>);

impl ChatLimit {
    /// A limit of `per_second`, with bursts of twice as many.
    pub fn new(per_second: u32) -> ChatLimit {
        ChatLimit(Mutex::new(Buckets::new(per_second, per_second.saturating_mul(2))))
    }

    /// Whether its owner may have one more.
    pub fn is_free(&self, owner: Tsid, now: DateTime<Utc>) -> bool {
        lock(&self.0).is_free(owner.0, now)
    }

    /// Counts one for its owner. False: it is over the limit.
    pub fn take(&self, owner: Tsid, now: DateTime<Utc>) -> bool {
        lock(&self.0).take(owner.0, now)
    }
}

/// The limits of messages, and when each user was last seen typing in each room.
pub struct ChatLimits {
    pub by_user: ChatLimit,
    pub by_room: ChatLimit,
    typing: Mutex<HashMap<(Tsid, Tsid), DateTime<Utc>>>,
}

impl ChatLimits {
    /// Limits of messages a second, of a user and in a room.
    pub fn new(user_sends: u32, room_sends: u32) -> ChatLimits {
        ChatLimits {
            by_user: ChatLimit::new(user_sends),
            by_room: ChatLimit::new(room_sends),
            typing: Mutex::default(),
        }
    }

    /// Whether others see that a user types in a room: once in `limits::TYPING_EVERY`; and that it stops, once.
    pub fn typing(&self, user_id: Tsid, room_id: Tsid, on: bool, now: DateTime<Utc>) -> bool {
        let mut typing = lock(&self.typing);
        if !on {
            return typing.remove(&(user_id, room_id)).is_some();
        }
        if typing.len() >= limits::ROOMS_KNOWN {
            typing.clear();
        }
        let last = typing.get(&(user_id, room_id));
        if last.is_some_and(|last| now < *last + limits::TYPING_EVERY) {
            return false;
        }
        typing.insert((user_id, room_id), now);
        true
    }
}
