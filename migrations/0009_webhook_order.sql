-- Order of webhooks: which of an endpoint's open webhooks is the next of its message is read from an index that holds open
-- ones alone, so that it costs the same whatever the endpoint got before. Webhooks from before, and those that an older
-- program writes meanwhile, have no `about` yet: workers add it within seconds, and send none out of order until then.
-- Its index is built while nobody writes: stop workers and API before this on an installation with many millions of rows.

-- The message that a webhook tells of, as in its own row of messages; null: not a webhook.
alter table deliveries
  add column about bigint,
  -- When a webhook was written, by the database's clock: an event is written after the commit of the one before it, whichever
  -- processes wrote the two. Their ids come from the processes' clocks, which may be apart.
  add column told_at timestamptz;
-- A collation of its own keeps the planner from taking an index on recipients that holds what has ended, too.
create index idx_delivery_sequence on deliveries (shard, about, recipient collate "C", told_at, message_id)
  where lane >= 66 and status in ('SCHEDULED', 'PENDING', 'PROCESSING');
