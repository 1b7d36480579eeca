-- Deliveries of a message that are not settled, as cancellation needs them. They are not locked: the fence of settle
-- detects changes in between.
-- $1 partner_id, $2 its shard, $3 message_id.
select shard, message_id, no, lane, status::text as "status!", attempt, max_attempts, possibly_sent, cancel_requested,
  has_fallback, expires_at
from deliveries
where partner_id = $1 and shard = $2 and message_id = $3
  and status = any('{SCHEDULED,PENDING,PROCESSING}'::delivery_status[])
order by no
