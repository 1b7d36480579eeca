-- Every idempotency key leads to its message, which is looked up by its primary key.
-- $1 shard; the key after which the slice begins: $2 partner_id, $3 client_msg_id; the last one of the slice: $4
-- partner_id, $5 client_msg_id; $6 message_id from this on, $7 message_id below this.
select i.message_id as "message_id!", 0::smallint as "no!", 'key without its message' as "found!"
from idempotency i
where i.shard = $1 and (i.partner_id, i.client_msg_id) > ($2, $3::text)
  and (i.partner_id, i.client_msg_id) <= ($4, $5::text) and i.message_id >= $6 and i.message_id < $7
  and i.client_msg_id is distinct from (
    select m.client_msg_id
    from messages m
    where m.shard = i.shard and m.message_id = i.message_id and m.partner_id = i.partner_id)
