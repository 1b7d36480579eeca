-- A user's stream is numbered once and without a gap up to its head: by items and by events. Only what came within the
-- hour before the check is looked at for gaps: older rows are dropped week by week. Returns the user.
-- $1 an hour before the check, $2 the first id of that time, $3 event of an item that arrived again, which has an old
-- number.
with numbers as (
  select shard, user_id, seq, arrived_at >= $1 as is_new from inbox_items
  union all
  select shard, stream_id, seq, event_id >= $2 and event <> $3 from stream_events
),
streams as (
  select shard, user_id, max(seq) as top, count(*) - count(distinct seq) as doubles,
    min(seq) filter (where is_new) as first_new
  from numbers
  group by shard, user_id
),
new_ones as (
  select n.shard, n.user_id, count(distinct n.seq) as n
  from numbers n
  join streams s on s.shard = n.shard and s.user_id = n.user_id
  where n.seq >= s.first_new
  group by n.shard, n.user_id
)
select s.user_id as "message_id!", 0::smallint as "no!",
  format('the stream of user %s has its head at %s, its last event at %s, %s numbers twice, %s since %s', s.user_id,
    coalesce(h.seq::text, 'nothing'), s.top, s.doubles, coalesce(n.n, 0), coalesce(s.first_new::text, 'no time'))
    as "found!"
from streams s
left join user_heads h on h.shard = s.shard and h.user_id = s.user_id
left join new_ones n on n.shard = s.shard and n.user_id = s.user_id
where h.seq is null or s.top > h.seq or s.doubles > 0 or n.n <> h.seq - s.first_new + 1
