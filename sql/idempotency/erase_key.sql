-- Deletes the idempotency key of a message and keeps its hash. Changes nothing if the message has no key.
-- $1 shard, $2 message_id, $3 hash of the key.
with key as (
  delete from idempotency i
  using messages m
  where m.shard = $1 and m.message_id = $2 and i.shard = m.shard and i.partner_id = m.partner_id
    and i.client_msg_id = m.client_msg_id
  returning i.partner_id, i.message_id, i.fingerprint
),
kept as (
  insert into erased_keys (partner_id, key_hash, message_id, fingerprint)
  select partner_id, $3, message_id, fingerprint from key
  on conflict do nothing
)
update messages set client_msg_id = null where shard = $1 and message_id = $2 and client_msg_id is not null
