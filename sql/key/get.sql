-- A key with its secrets' hashes, and the partner it speaks for. $1 client_id.
select client_id, role::text as "role!", partner_id, name, secret_hash, former_hash, former_until, epoch, revoked_at,
  created_at
from keys where client_id = $1
