-- Records that a user has seen its inbox up to an arrival, if items had arrived since, under a number of its stream.
-- Returns the number; no row if nothing was unseen.
-- $1 shard, $2 user_id, $3 seq up to which it looked (null: all), $4 event_id, $5 event.
with head as materialized (
  select shard, user_id, seq, seen_seq, least(coalesce($3::bigint, seq), seq) as up_to
  from user_heads
  where shard = $1 and user_id = $2
  for no key update
),
numbered as (
  update user_heads u
  set seq = u.seq + 1, seen_seq = h.up_to
  from head h
  where u.shard = h.shard and u.user_id = h.user_id and h.up_to > h.seen_seq
    and exists (
      select from inbox_items i
      where i.shard = $1 and i.user_id = $2 and i.seq > h.seen_seq and i.seq <= h.up_to)
  returning u.shard, u.user_id, u.seq
)
insert into stream_events (shard, stream_id, seq, event_id, event)
select shard, user_id, seq, $4, $5 from numbered
returning seq
