-- The indexes of webhooks hold the channel WEBHOOK's lanes alone, 66 to 71, and not those of channels that come after it.
-- A statement of an older program says `lane >= 66` and cannot use them. It stays correct, but reads whole partitions; and
-- nothing is written while the indexes are built. So on an installation with many millions of rows stop workers and API
-- before this. Dropped first: a lock that is taken at once cannot meet another in a ring.
drop index idx_delivery_endpoint, idx_delivery_sequence;
-- No recipient is null: this keeps the planner from taking the index for a statement that names no recipient.
create index idx_delivery_endpoint on deliveries (shard, recipient, message_id)
  where lane between 66 and 71 and recipient is not null;
-- Its collation is for the planner: see 0009.
create index idx_delivery_sequence on deliveries (shard, about, recipient collate "C", told_at, message_id)
  where lane between 66 and 71 and status in ('SCHEDULED', 'PENDING', 'PROCESSING');
