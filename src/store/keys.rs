//! Keys of deliveries and messages as statements take them: an array for each column.

use crate::id::Tsid;
use crate::model::delivery::DeliveryKey;

/// Keys of deliveries, in the order in which they were given.
pub(super) struct Keys {
    pub shards: Vec<i16>,
    pub message_ids: Vec<i64>,
    pub nos: Vec<i16>,
    /// The least and the greatest of the message ids: with both the planner leaves out the partitions beside them.
    pub low: i64,
    pub high: i64,
}

impl Keys {
    /// The columns of these keys, each allocated once. None: there are no keys, so the statement has nothing to do.
    pub fn of(keys: impl ExactSizeIterator<Item = DeliveryKey>) -> Option<Keys> {
        let (mut shards, mut message_ids, mut nos) =
            (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for DeliveryKey { shard, message_id, no } in keys {
            shards.push(shard);
            message_ids.push(message_id.0);
            nos.push(no);
            (low, high) = (low.min(message_id.0), high.max(message_id.0));
        }
        (!nos.is_empty()).then_some(Keys { shards, message_ids, nos, low, high })
    }
}

/// Keys of messages, in the order in which they were given.
pub(super) struct Messages {
    pub shards: Vec<i16>,
    pub ids: Vec<i64>,
    /// The least and the greatest of the ids: with both the planner leaves out the partitions beside them.
    pub low: i64,
    pub high: i64,
}

impl Messages {
    /// The columns of these messages, each allocated once. None: there are no messages, so the statement has nothing to
    /// do.
    pub fn of(messages: impl ExactSizeIterator<Item = (i16, Tsid)>) -> Option<Messages> {
        let (mut shards, mut ids) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for (shard, id) in messages {
            shards.push(shard);
            ids.push(id.0);
            (low, high) = (low.min(id.0), high.max(id.0));
        }
        (!ids.is_empty()).then_some(Messages { shards, ids, low, high })
    }
}

/// The key that a row names.
pub(super) fn key(shard: i16, message_id: i64, no: i16) -> DeliveryKey {
    DeliveryKey { shard, message_id: Tsid(message_id), no }
}
