-- Writes messages into rooms: those whose sender may write there and that are not there yet, numbered in their rooms'
-- streams. Heads are locked in order, so that two groups do not wait for each other in a ring. No row of a member is
-- touched. A second writer of the same tempId fails by its key (the whole statement), and finds it when it tries again.
-- One each per message: $1 shard[], $2 room_id[], $3 sender_id[], $4 temp_id[], $5 chat_id[], $6 kind[], $7 content[].
-- For all: $8 now, $9 the least id of the next millisecond, $10 by how much ids grow in a second.
with given as materialized (
  select *
  from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[])
    with ordinality as g(shard, room_id, sender_id, temp_id, chat_id, kind, content, nth)
),
allowed as materialized (
  select g.*, row_number() over (partition by g.shard, g.room_id order by g.nth) as place,
    count(*) over (partition by g.shard, g.room_id) as n
  from given g
  -- Each is looked for as the first of a range of one key: while the tables grow from nothing, a join by equality may
  -- be planned as a search through all members.
  cross join lateral (
    select m.role, m.left_at, m.silenced_until
    from members m
    where m.shard = g.shard and m.room_id = g.room_id and m.user_id between g.sender_id and g.sender_id
    order by m.user_id
    limit 1
  ) m
  cross join lateral (
    select h.seq, h.admins_write, h.slow_mode_s, h.is_individual
    from room_heads h
    where h.shard = g.shard and h.room_id between g.room_id and g.room_id
    order by h.room_id
    limit 1
  ) h
  where m.left_at is null
    and (m.silenced_until is null or m.silenced_until <= $8)
    and (not h.admins_write or m.role <> 'MEMBER')
    and (h.slow_mode_s = 0 or not (
      exists (
        select from given o
        where o.shard = g.shard and o.room_id = g.room_id and o.sender_id = g.sender_id and o.nth < g.nth)
      or exists (
        select from chat_messages c
        where c.shard = g.shard and c.room_id = g.room_id and c.seq > h.seq - 2000 and c.sender_id = g.sender_id
          and c.chat_id >= $9::bigint - h.slow_mode_s * $10::bigint)))
    and (not h.is_individual or not exists (
      select from members o
      join user_blocks b on b.shard = o.shard and b.user_id = o.user_id and b.blocked_id = g.sender_id
      where o.shard = g.shard and o.room_id = g.room_id and o.user_id <> g.sender_id))
    and (g.temp_id is null or not exists (
      select from chat_messages c
      where c.room_id = g.room_id and c.sender_id = g.sender_id and c.temp_id = g.temp_id and c.shard = g.shard))
),
-- Every room has its head, so nothing is inserted: each is found by its key, and locked in order.
heads as (
  insert into room_heads as h (shard, room_id, seq, no, last_seq, last_id, last_sender_id, most_members, is_individual)
  select shard, room_id, count(*), count(*), count(*), max(chat_id), (array_agg(sender_id order by nth desc))[1], 1,
    false
  from allowed
  group by shard, room_id
  order by shard, room_id
  on conflict on constraint pk_room_heads do update
  set seq = h.seq + excluded.seq, no = h.no + excluded.no, last_seq = h.seq + excluded.seq,
    last_id = greatest(h.last_id, excluded.last_id), last_sender_id = excluded.last_sender_id
  where h.is_open
  returning h.shard, h.room_id, h.seq, h.no
)
insert into chat_messages (shard, room_id, seq, no, chat_id, sender_id, temp_id, kind, content)
select a.shard, a.room_id, h.seq - a.n + a.place, h.no - a.n + a.place, a.chat_id, a.sender_id, a.temp_id, a.kind,
  a.content
from allowed a
join heads h on h.shard = a.shard and h.room_id = a.room_id
returning chat_id, seq, no
