-- Deletes hashes of erased keys of messages older than the oldest retained one.
-- $1 message_id below this, $2 rows at most.
delete from erased_keys where (partner_id, key_hash) in (
  select partner_id, key_hash from erased_keys where message_id < $1 limit $2)
