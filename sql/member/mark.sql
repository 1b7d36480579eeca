-- Moves marks of members forward, never back, to numbers of messages that there are; a member that has read a message
-- was handed it, too. Returns those whose read mark moved.
-- One each per mark: $1 shard[], $2 room_id[], $3 user_id[], $4 read up to this no[], $5 handed up to this no[].
-- For all: $6 now, $7 whether to keep when it was read.
with given as materialized (
  select * from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    as g(shard, room_id, user_id, read_no, delivered_no)
),
needed as materialized (
  select g.shard, g.room_id, g.user_id, g.read_no, greatest(g.delivered_no, g.read_no) as delivered_no
  from given g
  cross join lateral (
    select m.left_at
    from members m
    where m.shard = g.shard and m.room_id = g.room_id and m.user_id between g.user_id and g.user_id
    order by m.user_id
    limit 1
  ) m
  where m.left_at is null
),
-- Every member has its row, so nothing is inserted: each is found by its key, and locked in order.
moved as (
  insert into members as m (shard, room_id, user_id, role, joined_at, read_no, delivered_no)
  select shard, room_id, user_id, 'MEMBER', $6, read_no, delivered_no
  from needed
  order by shard, room_id, user_id
  on conflict on constraint pk_members do update
  set read_no = greatest(m.read_no, excluded.read_no), delivered_no = greatest(m.delivered_no, excluded.delivered_no),
    read_at = case when excluded.read_no > m.read_no then $6 else m.read_at end
  where m.left_at is null and (m.read_no < excluded.read_no or m.delivered_no < excluded.delivered_no)
  returning m.shard, m.room_id, m.user_id, m.read_no, m.read_at
),
kept as (
  insert into read_marks (shard, room_id, user_id, up_to_no, read_at)
  select shard, room_id, user_id, read_no, $6 from moved where $7 and read_at = $6
  on conflict do nothing
)
select shard, room_id, user_id, read_no from moved where read_at = $6
