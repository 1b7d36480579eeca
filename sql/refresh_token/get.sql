-- The use and revocation of a refresh token.
-- $1 token_hash.
select family, client_id, used_at, revoked_at from refresh_tokens where token_hash = $1
