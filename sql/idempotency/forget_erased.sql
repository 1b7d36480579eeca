-- Hashes of erased keys live as long as their messages. $1 the oldest message id kept, $2 rows at most.
delete from erased_keys where (partner_id, key_hash) in (
  select partner_id, key_hash from erased_keys where message_id < $1 limit $2)
