-- Puts items into inboxes: those that are not there yet, numbered in the streams of their users. Heads are locked in
-- order, so that two batches do not wait for each other in a ring. A second writer of the same item fails by its key
-- (the whole statement), and finds it when it tries again.
-- One each per item: $1 shard[], $2 user_id[], $3 message_id[], $4 no[], $5 content[], $6 expires_at[].
-- For all: $7 now, $8 and $9 the smallest and largest message_id (partition pruning).
with given as materialized (
  select *
  from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::smallint[], $6::timestamptz[])
    as g(shard, user_id, message_id, no, content, expires_at)
),
missing as materialized (
  select g.*, row_number() over (partition by g.shard, g.user_id order by g.message_id, g.no) as nth,
    count(*) over (partition by g.shard, g.user_id) as n,
    dense_rank() over (order by g.shard, g.user_id) as head
  from given g
  where not exists (
    select from inbox_items i
    where i.shard = g.shard and i.message_id = g.message_id and i.no = g.no
      and i.message_id between $8 and $9)
),
heads as (
  insert into user_heads as h (shard, user_id, seq)
  select shard, user_id, count(*) from missing group by shard, user_id order by shard, user_id
  on conflict on constraint pk_user_heads do update set seq = h.seq + excluded.seq
  returning h.shard, h.user_id, h.seq
)
insert into inbox_items (shard, user_id, message_id, no, content, seq, arrived_at, expires_at)
select m.shard, m.user_id, m.message_id, m.no, m.content,
  -- The heads in the order of `head`: a join of two lists would compare each item with each head.
  (select array_agg(h.seq order by h.shard, h.user_id) from heads h)[m.head] - m.n + m.nth, $7, m.expires_at
from missing m
returning shard, user_id, seq
