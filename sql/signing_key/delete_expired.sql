-- Deletes expired signing keys.
-- $1 now.
delete from signing_keys where expires_at <= $1
