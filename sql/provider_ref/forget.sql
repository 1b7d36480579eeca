-- Providers' ids live as long as the messages they stand for. $1 the oldest message id kept, $2 rows at most.
delete from provider_refs where (provider, provider_ref) in (
  select provider, provider_ref from provider_refs where message_id < $1 limit $2)
