-- Writes messages into rooms, of those whose sender may write there, and numbers them in their rooms' streams. Gates
-- are locked in order, so that two groups do not wait for each other in a ring. No row is updated. A message that is
-- there already, with its tempId, fails the whole statement by its key: to look for each beforehand cost a fifth of the
-- speed.
-- One each per message: $1 shard[], $2 room_id[], $3 sender_id[], $4 temp_id[], $5 chat_id[], $6 kind[], $7 content[].
-- For all: $8 now, $9 the least id of the next millisecond, $10 by how much ids grow in a second.
with given as materialized (
  select *
  from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[])
    with ordinality as g(shard, room_id, sender_id, temp_id, chat_id, kind, content, nth)
),
heads as materialized (
  select h.*
  from (
    select array_agg(shard order by room_id) as shards, array_agg(room_id order by room_id) as room_ids
    from (select distinct shard, room_id from given) r
  ) r
  cross join lateral lock_room_gates(r.shards, r.room_ids) h
  where h.is_open
),
allowed as materialized (
  select g.*, row_number() over (partition by g.room_id order by g.nth) as place, h.seq, h.no
  from given g
  join heads h on h.room_id = g.room_id and h.shard = g.shard
  -- Each is looked for as the first of a range of one key: while the tables grow from nothing, a join by equality may
  -- be planned as a search through all members.
  cross join lateral (
    select m.role, m.left_at, m.silenced_until
    from members m
    where m.shard = g.shard and m.room_id = g.room_id and m.user_id between g.sender_id and g.sender_id
    order by m.user_id
    limit 1
  ) m
  where m.left_at is null
    and (m.silenced_until is null or m.silenced_until <= $8)
    and (not h.admins_write or m.role <> 'MEMBER')
    and (h.slow_mode_s = 0 or not (
      exists (
        select from given o
        where o.shard = g.shard and o.room_id = g.room_id and o.sender_id = g.sender_id and o.nth < g.nth)
      or coalesce(
        (
          select c.chat_id
          from chat_messages c
          where c.room_id = g.room_id and c.sender_id = g.sender_id and c.shard = g.shard
          order by c.no desc
          limit 1) >= $9::bigint - h.slow_mode_s * $10::bigint, false)))
    and (not h.is_individual or not exists (
      select from members o
      join user_blocks b on b.shard = o.shard and b.user_id = o.user_id and b.blocked_id = g.sender_id
      where o.shard = g.shard and o.room_id = g.room_id and o.user_id <> g.sender_id))
)
insert into chat_messages (shard, room_id, seq, no, chat_id, sender_id, temp_id, kind, content)
select shard, room_id, seq + place, no + place, chat_id, sender_id, temp_id, kind, content
from allowed
returning chat_id, seq, no
