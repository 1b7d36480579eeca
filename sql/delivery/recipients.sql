-- Recipient, lane, content and status of each delivery of a message.
-- $1 shard, $2 message_id.
select no, lane, content, recipient, written, status::text as "status!"
from deliveries
where shard = $1 and message_id = $2
order by no
