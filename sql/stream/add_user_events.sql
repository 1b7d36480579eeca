-- Adds the same event to users' streams. Heads are locked in order.
-- $1 shard, $2 user_id[], $3 event_id, $4 event, $5 about.
with heads as (
  insert into user_heads as h (shard, user_id, seq)
  select $1, u.user_id, 1 from unnest($2::bigint[]) as u(user_id) order by u.user_id
  on conflict on constraint pk_user_heads do update set seq = h.seq + 1
  returning h.shard, h.user_id, h.seq
)
insert into stream_events (shard, stream_id, seq, event_id, event, about)
select shard, user_id, seq, $3, $4, $5 from heads
returning stream_id, seq
