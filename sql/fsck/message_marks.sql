-- Marks of the keys that messages should have, by stretches of ids: `key_marks` gives the same if each key leads to its
-- message and back. The order makes the planner read the primary key of messages, whatever the statistics: its other
-- indexes do not bound a slice.
-- $1 shard, $2 message_id from this on, $3 message_id below this, $4 bits of an id within a stretch.
select message_id >> $4 as "stretch!", count(*) as "keys!",
  bit_xor(hashtextextended(client_msg_id, partner_id # message_id)) as "mark!"
from (
  select message_id, partner_id, client_msg_id
  from messages
  where shard = $1 and message_id >= $2 and message_id < $3 and client_msg_id is not null
  order by message_id
) m
group by 1
