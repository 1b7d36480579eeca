-- Inserts messages into rooms in turns, as if one after another had come into each.
-- $1 shard, $2 first room_id, $3 number of rooms (their ids are consecutive), $4 number of the last message of each
-- room so far, $5 number of messages for each, $6 first chat_id, $7 user_id[] of senders, $8 kind, $9
-- content.
with m as (
  select $2 + n as room_id, $4::bigint + k as no, $6 + (k - 1) * $3::bigint + n as chat_id
  from generate_series(1, $5::bigint) as k, generate_series(0, $3::bigint - 1) as n
)
insert into chat_messages (shard, room_id, seq, no, chat_id, sender_id, temp_id, kind, content)
select $1, room_id, no, no, chat_id, ($7::bigint[])[1 + no % cardinality($7::bigint[])], 'filled-' || no, $8, $9
from m
