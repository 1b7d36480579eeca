-- Sets a new secret. The former one and the tokens it gave (they are of the epoch before) stay valid until $3. With $3
-- null they are invalid at once, and a revoked key's former secret is never kept.
-- $1 client_id, $2 secret_hash, $3 former_until.
update keys
set former_hash = case when $3::timestamptz is not null and revoked_at is null then secret_hash end,
  former_until = case when revoked_at is null then $3 end, secret_hash = $2, epoch = epoch + 1, revoked_at = null
where client_id = $1
