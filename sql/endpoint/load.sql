-- Endpoints by id, of any partner and status, for workers.
-- $1 endpoint_id[].
select shard, partner_id, endpoint_id, url, description, events, status::text as "status!", disabled_reason, ordered,
  include_content, contact_email, headers, secret, former_secret, former_until, failing_since, last_success_at,
  last_failure_at, resumed_at, created_at, updated_at
from endpoints
where endpoint_id = any($1)
