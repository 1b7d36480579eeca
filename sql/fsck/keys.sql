-- Every message with a clientMsgId has its key. The key is looked up by its whole primary key, message by message: a
-- join would read all keys of the shard for each slice. The order makes the planner read the primary key of messages,
-- whatever the statistics: its other indexes do not bound a slice.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select m.message_id as "message_id!", 0::smallint as "no!", 'message without its key' as "found!"
from (
  select shard, message_id, partner_id, client_msg_id
  from messages
  where shard = $1 and message_id >= $2 and message_id < $3 and client_msg_id is not null
  order by message_id
) m
where m.message_id is distinct from (
  select i.message_id
  from idempotency i
  where i.shard = m.shard and i.partner_id = m.partner_id and i.client_msg_id = m.client_msg_id)
