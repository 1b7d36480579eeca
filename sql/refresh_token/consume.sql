-- Uses a refresh token. Returns no row if it was used, revoked or expired.
-- $1 token_hash, $2 now.
update refresh_tokens set used_at = $2
where token_hash = $1 and used_at is null and revoked_at is null and expires_at > $2
returning family, client_id, epoch
