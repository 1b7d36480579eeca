-- Deliveries of a message, by number.
-- $1 partner_id, $2 its shard, $3 message_id, $4 no (null: all).
select message_id, no, lane, status::text as "status!", attempt, max_attempts, content, possibly_sent, cancel_requested,
  ready_at, lease_until, worker, expires_at, settled_at, recipient, written, provider,
  reason, partner_id, shard, chain, has_fallback, receipt_due
from deliveries
where partner_id = $1 and shard = $2 and message_id = $3 and ($4::smallint is null or no = $4)
order by no
