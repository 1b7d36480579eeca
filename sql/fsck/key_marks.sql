-- Marks of idempotency keys, by stretches of the ids of their messages: see `message_marks`.
-- $1 shard; the key after which the slice begins: $2 partner_id, $3 client_msg_id; the last one of the slice: $4
-- partner_id, $5 client_msg_id; $6 only of messages below this, $7 bits of an id within a stretch.
select message_id >> $7 as "stretch!", count(*) as "keys!",
  bit_xor(hashtextextended(client_msg_id, partner_id # message_id)) as "mark!"
from idempotency
where shard = $1 and (partner_id, client_msg_id) > ($2, $3::text) and (partner_id, client_msg_id) <= ($4, $5::text)
  and message_id < $6
group by 1
