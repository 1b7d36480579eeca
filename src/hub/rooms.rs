//! What never changes of rooms, as far as this process has asked for it.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;

/// What never changes of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomFacts {
    pub partner_id: Tsid,
    pub encrypted: bool,
}

/// The rooms that are known, at most `limits::ROOMS_KNOWN`.
#[derive(Default)]
pub struct Rooms(Mutex<HashMap<Tsid, RoomFacts>>);

impl Rooms {
    /// What is known of a room.
    pub fn get(&self, room_id: Tsid) -> Option<RoomFacts> {
        lock(&self.0).get(&room_id).copied()
    }

    /// Remembers a room.
    pub fn insert(&self, room_id: Tsid, facts: RoomFacts) {
        let mut known = lock(&self.0);
        if known.len() >= limits::ROOMS_KNOWN {
            known.clear();
        }
        known.insert(room_id, facts);
    }
}
