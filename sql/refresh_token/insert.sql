-- Stores a refresh token by its hash.
-- $1 token_hash, $2 family, $3 client_id, $4 epoch, $5 issued_at, $6 expires_at, $7 network.
insert into refresh_tokens (token_hash, family, client_id, epoch, issued_at, expires_at, network)
values ($1, $2, $3, $4, $5, $6, $7)
