-- All API keys, without secrets.
select k.client_id, k.role::text as "role!", k.partner_id, k.name, k.former_until, k.revoked_at, k.created_at
from keys k order by k.created_at, k.client_id
