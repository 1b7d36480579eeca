//! Keys of deliveries and messages as statements take them: one array per column.

use crate::id::Tsid;
use crate::model::delivery::DeliveryKey;

/// Delivery keys, in the order in which they were given.
pub(super) struct KeyColumns {
    pub shards: Vec<i16>,
    pub message_ids: Vec<i64>,
    pub nos: Vec<i16>,
    /// Smallest and largest message id: with both the planner prunes partitions.
    pub low: i64,
    pub high: i64,
}

impl KeyColumns {
    /// Splits keys into columns, each allocated once. None if there are no keys: the statement has nothing to do.
    pub fn of(keys: impl ExactSizeIterator<Item = DeliveryKey>) -> Option<KeyColumns> {
        let (mut shards, mut message_ids, mut nos) =
            (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for DeliveryKey { shard, message_id, no } in keys {
            shards.push(shard);
            message_ids.push(message_id.0);
            nos.push(no);
            (low, high) = (low.min(message_id.0), high.max(message_id.0));
        }
        (!nos.is_empty()).then_some(KeyColumns { shards, message_ids, nos, low, high })
    }
}

/// Message keys, in the order in which they were given.
pub(super) struct MessageColumns {
    pub shards: Vec<i16>,
    pub ids: Vec<i64>,
    /// Smallest and largest id: with both the planner prunes partitions.
    pub low: i64,
    pub high: i64,
}

impl MessageColumns {
    /// Splits (shard, message id) pairs into columns, each allocated once. None if there are no messages: the statement
    /// has nothing to do.
    pub fn of(messages: impl ExactSizeIterator<Item = (i16, Tsid)>) -> Option<MessageColumns> {
        let (mut shards, mut ids) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for (shard, id) in messages {
            shards.push(shard);
            ids.push(id.0);
            (low, high) = (low.min(id.0), high.max(id.0));
        }
        (!ids.is_empty()).then_some(MessageColumns { shards, ids, low, high })
    }
}

/// Builds a delivery key from the columns of a row.
pub(super) fn key(shard: i16, message_id: i64, no: i16) -> DeliveryKey {
    DeliveryKey { shard, message_id: Tsid(message_id), no }
}
