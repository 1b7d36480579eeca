-- Inserts a signing key.
-- $1 kid, $2 sealed, $3 created_at, $4 active_at, $5 expires_at.
insert into signing_keys (kid, sealed, created_at, active_at, expires_at) values ($1, $2, $3, $4, $5)
