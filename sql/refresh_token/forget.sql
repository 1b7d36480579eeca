-- $1 those that were over before, $2 rows at most.
delete from refresh_tokens where token_hash in (select token_hash from refresh_tokens where expires_at < $1 limit $2)
