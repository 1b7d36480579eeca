-- A message of a partner.
-- $1 partner_id, $2 its shard, $3 message_id.
select message_id, partner_id, client_msg_id, kind, priority, detail::text as "detail!", created_at,
  scheduled_at, expires_at
from messages
where partner_id = $1 and shard = $2 and message_id = $3
