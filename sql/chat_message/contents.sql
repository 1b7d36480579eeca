-- The contents of a room's messages and of those that they replaced, oldest message first: version 0 is the present
-- one.
-- $1 shard, $2 room_id, $3 seq after this, $4 messages at most.
with present as materialized (
  select c.seq, c.chat_id, c.content
  from chat_messages c
  where c.shard = $1 and c.room_id = $2 and c.seq > $3
  order by c.seq
  limit $4
)
select p.seq as "seq!", p.chat_id as "chat_id!", 0::smallint as "version!", p.content as "content!" from present p
union all
select p.seq, p.chat_id, v.version, v.content
from present p
cross join lateral (
  select version, content from chat_versions
  where shard = $1 and room_id = $2 and seq = p.seq
  order by version
  limit 32767
) v
order by 1, 3
