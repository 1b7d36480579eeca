-- Deletes counts of periods that are over.
-- $1 periods that began at or before this, $2 rows at most.
delete from sign_in_failures where (client_id, network) in (
  select client_id, network from sign_in_failures where since <= $1 limit $2)
