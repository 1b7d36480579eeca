-- Cancel, first half: a message's deliveries that are not settled yet. The fence of settle holds what changes meanwhile.
-- $1 partner, $2 its shard, $3 message.
select shard, message_id, no, lane, status::text as "status!", attempt, max_attempts, possibly_sent, cancel_requested,
  has_fallback, expires_at
from deliveries
where partner_id = $1 and shard = $2 and message_id = $3
  and status = any('{SCHEDULED,PENDING,PROCESSING}'::delivery_status[])
order by no

