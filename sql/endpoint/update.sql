-- Updates the settings of an endpoint; its secrets are not changed.
-- $1 partner_id, $2 its shard, $3 endpoint_id, $4 url, $5 description, $6 events, $7 status, $8 disabled_reason, $9
-- ordered, $10 include_content, $11 contact_email, $12 headers (sealed), $13 failing_since, $14 resumed_at, $15 now.
update endpoints
set url = $4, description = $5, events = $6, status = ($7::text)::endpoint_status, disabled_reason = $8, ordered = $9,
  include_content = $10, contact_email = $11, headers = $12, failing_since = $13, resumed_at = $14, updated_at = $15
where partner_id = $1 and shard = $2 and endpoint_id = $3
