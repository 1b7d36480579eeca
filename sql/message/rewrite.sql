-- What a message says, written anew, and its key where that says something of a person.
-- $1 shard, $2 message_id, $3 detail (JSON text), $4 client_msg_id.
with key as (
  update idempotency i set client_msg_id = $4
  from messages m
  where m.shard = $1 and m.message_id = $2 and i.shard = m.shard and i.partner_id = m.partner_id
    and i.client_msg_id = m.client_msg_id and m.client_msg_id <> $4
)
update messages set detail = ($3::text)::jsonb, client_msg_id = $4 where shard = $1 and message_id = $2
