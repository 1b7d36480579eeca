-- Revokes an API key: its secrets and all its tokens are refused from now on.
-- $1 client_id, $2 now.
update keys set revoked_at = coalesce(revoked_at, $2), epoch = epoch + 1, former_hash = null, former_until = null
where client_id = $1
