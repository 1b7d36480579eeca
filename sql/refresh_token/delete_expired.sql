-- Deletes expired refresh tokens.
-- $1 expires_at before this, $2 rows at most.
delete from refresh_tokens where token_hash in (select token_hash from refresh_tokens where expires_at < $1 limit $2)
