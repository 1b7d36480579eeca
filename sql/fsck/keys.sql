-- Every idempotency key leads to its message, and every message with a clientMsgId has its key.
-- $1 message_id from this on, $2 message_id below this.
select i.message_id as "message_id!", 0::smallint as "no!", 'key without its message' as "found!"
from idempotency i
where i.message_id >= $1 and i.message_id < $2 and not exists (
  select from messages m
  where m.message_id >= $1 and m.message_id < $2
    and m.shard = i.shard and m.message_id = i.message_id and m.partner_id = i.partner_id
    and m.client_msg_id = i.client_msg_id)
union all
select m.message_id, 0::smallint, 'message without its key'
from messages m
where m.message_id >= $1 and m.message_id < $2 and m.client_msg_id is not null and not exists (
  select from idempotency i
  where i.message_id >= $1 and i.message_id < $2
    and i.shard = m.shard and i.partner_id = m.partner_id and i.client_msg_id = m.client_msg_id
    and i.message_id = m.message_id)
