-- Deletes providers' ids of messages older than the oldest retained one.
-- $1 message_id below this, $2 rows at most.
delete from provider_refs where (provider, provider_ref) in (
  select provider, provider_ref from provider_refs where message_id < $1 limit $2)
