-- Disables an endpoint that is in use; none comes back when it is not, or not any more. What is parked for it is let go, to
-- become dead letters. $1 endpoint_id, $2 why, $3 now, $4 only if this is still its URL (null: whatever it is).
update endpoints
set status = 'DISABLED', disabled_reason = $2, resumed_at = $3, updated_at = $3
where endpoint_id = $1 and status in ('ACTIVE', 'PAUSED') and ($4::text is null or url = $4)
returning shard, partner_id, url, contact_email
