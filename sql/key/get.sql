-- An API key with the hashes of its secrets.
-- $1 client_id.
select client_id, role::text as "role!", partner_id, name, secret_hash, former_hash, former_until, epoch, revoked_at,
  created_at
from keys where client_id = $1
