-- Inserts messages into rooms in turns, as if one after another had come into each, and moves the heads.
-- $1 shard, $2 first room_id, $3 number of rooms (their ids are consecutive), $4 number of the last message of each
-- room so far, $5 number of messages for each, $6 first chat_id, $7 user_id[] of senders, $8 kind, $9
-- content.
with m as (
  select $2 + n as room_id, $4::bigint + k as no, $6 + (k - 1) * $3::bigint + n as chat_id
  from generate_series(1, $5::bigint) as k, generate_series(0, $3::bigint - 1) as n
),
heads as (
  update room_heads h
  set seq = h.seq + $5::bigint, no = h.no + $5::bigint, last_seq = h.seq + $5::bigint,
    last_id = greatest(h.last_id, $6 + ($5::bigint - 1) * $3::bigint + h.room_id - $2)
  where h.shard = $1 and h.room_id >= $2 and h.room_id < $2 + $3::bigint
)
insert into chat_messages (shard, room_id, seq, no, chat_id, sender_id, temp_id, kind, content)
select $1, room_id, no, no, chat_id, ($7::bigint[])[1 + no % cardinality($7::bigint[])], 'filled-' || no, $8, $9
from m
