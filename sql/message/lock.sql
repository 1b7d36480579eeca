-- Locks a message while its detail is rewritten.
-- $1 shard, $2 message_id.
select partner_id, client_msg_id, detail::text as "detail!"
from messages
where shard = $1 and message_id = $2
for update
