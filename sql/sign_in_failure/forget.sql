-- Counts that no sign-in is judged by any more. $1 periods that began then or before, $2 rows at most.
delete from sign_in_failures where (client_id, network) in (
  select client_id, network from sign_in_failures where since <= $1 limit $2)
