-- Which of these messages are there already, or stand here before, with the same tempId: their places, from 0.
-- One each per message: $1 shard[], $2 room_id[], $3 sender_id[], $4 temp_id[].
with given as materialized (
  select shard, room_id, sender_id, temp_id, nth - 1 as place
  from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[])
    with ordinality as g(shard, room_id, sender_id, temp_id, nth)
  where temp_id is not null
)
select g.place as "place!"
from given g
-- As the first of a range of one key: while the table grows from nothing, equality may be planned as a search through
-- all messages of the sender.
left join lateral (
  select c.seq
  from chat_messages c
  where c.room_id = g.room_id and c.sender_id = g.sender_id and c.temp_id between g.temp_id and g.temp_id
    and c.temp_id is not null and c.shard = g.shard
  order by c.temp_id
  limit 1
) c on true
where c.seq is not null
  or exists (
    select from given o
    where o.room_id = g.room_id and o.sender_id = g.sender_id and o.temp_id = g.temp_id and o.place < g.place)
