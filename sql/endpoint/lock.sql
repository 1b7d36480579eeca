-- Locks an endpoint of a partner for a change, unless it is deleted.
-- $1 partner_id, $2 its shard, $3 endpoint_id.
select shard, partner_id, endpoint_id, url, description, events, status::text as "status!", disabled_reason, ordered,
  include_content, contact_email, headers, secret, former_secret, former_until, failing_since, last_success_at,
  last_failure_at, resumed_at, created_at, updated_at
from endpoints
where partner_id = $1 and shard = $2 and endpoint_id = $3 and status <> 'DELETED'
for update
