-- Deletes idempotency keys of messages older than the oldest retained one.
-- $1 message_id below this, $2 rows at most.
delete from idempotency where (shard, partner_id, client_msg_id) in (
  select shard, partner_id, client_msg_id from idempotency where message_id < $1 limit $2)
