-- Whether a message has a delivery that is not settled, or was settled at or after a time.
-- $1 partner_id, $2 its shard, $3 message_id, $4 settled_at from this on.
select exists (
  select from deliveries
  where partner_id = $1 and shard = $2 and message_id = $3 and (settled_at is null or settled_at >= $4)
) as "visible!"
