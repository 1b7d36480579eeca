-- Disables an endpoint that is ACTIVE or PAUSED; returns no row otherwise. Sets resumed_at, so that its parked
-- deliveries are released and end as dead letters.
-- $1 endpoint_id, $2 disabled_reason, $3 now, $4 url that the endpoint must still have (null: any).
update endpoints
set status = 'DISABLED', disabled_reason = $2, resumed_at = $3, updated_at = $3
where endpoint_id = $1 and status in ('ACTIVE', 'PAUSED') and ($4::text is null or url = $4)
returning shard, partner_id, url, contact_email
