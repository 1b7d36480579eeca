-- Keys live as long as their messages. $1 the oldest message id kept, $2 rows at most.
delete from idempotency where (shard, partner_id, client_msg_id) in (
  select shard, partner_id, client_msg_id from idempotency where message_id < $1 limit $2)
