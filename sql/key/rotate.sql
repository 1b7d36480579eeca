-- A new secret; the one before stays good until $3, unless it was revoked. Without an overlap ($3 null) every token it gave
-- is void too. $1 client_id, $2 secret_hash, $3 former_until.
update keys
set former_hash = case when $3::timestamptz is not null and revoked_at is null then secret_hash end,
  former_until = case when revoked_at is null then $3 end, secret_hash = $2,
  epoch = epoch + ($3::timestamptz is null)::int, revoked_at = null
where client_id = $1
