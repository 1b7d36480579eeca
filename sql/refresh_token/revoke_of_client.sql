-- Revokes every refresh token of a client that is not revoked yet.
-- $1 client_id, $2 now.
update refresh_tokens set revoked_at = $2 where client_id = $1 and revoked_at is null
