-- Whether something of a message is not settled yet, or was settled of late. $1 partner, $2 its shard, $3 message,
-- $4 settled at this time or later.
select exists (
  select from deliveries
  where partner_id = $1 and shard = $2 and message_id = $3 and (settled_at is null or settled_at >= $4)
) as "seen!"
