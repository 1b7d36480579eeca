//! Marks of members that wait to be written: of each member the highest. They are written together, four times a
//! second.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock::lock;
use crate::id::Tsid;
use crate::store::member::NewMark;

/// A member: shard, room and user.
type MemberKey = (i16, Tsid, Tsid);

/// Marks that wait: of each member the numbers up to which it has read, and was handed messages.
#[derive(Default)]
pub struct MarkQueue(Mutex<HashMap<MemberKey, (i64, i64)>>);

impl MarkQueue {
    /// Notes that a member has read, and was handed, messages up to these numbers.
    pub fn note(&self, shard: i16, room_id: Tsid, user_id: Tsid, read_no: i64, delivered_no: i64) {
        let mut waiting = lock(&self.0);
        let (read, delivered) = waiting.entry((shard, room_id, user_id)).or_default();
        (*read, *delivered) = (read_no.max(*read), delivered_no.max(*delivered));
    }

    /// Takes up to `most` marks.
    pub fn take(&self, most: usize) -> Vec<NewMark> {
        let mut waiting = lock(&self.0);
        let keys: Vec<MemberKey> = waiting.keys().take(most).copied().collect();
        let taken = keys.into_iter().filter_map(|key| Some((key, waiting.remove(&key)?)));
        taken
            .map(|((shard, room_id, user_id), (read_no, delivered_no))| NewMark {
                shard,
                room_id,
                user_id,
                read_no,
                delivered_no,
            })
            .collect()
    }

    /// Puts back marks that could not be written.
    pub fn put_back(&self, marks: &[NewMark]) {
        marks.iter().for_each(|m| self.note(m.shard, m.room_id, m.user_id, m.read_no, m.delivered_no));
    }
}
