-- Signing keys that have not expired, oldest first.
-- $1 now.
select kid, sealed, created_at, active_at, expires_at from signing_keys where expires_at > $1 order by created_at
