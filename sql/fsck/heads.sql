-- The stream of a user or a room is numbered once and without a gap up to its head: by items, messages and events. The
-- gate of a room may be behind its last message. Only what came within the hour before the check is looked at for gaps:
-- older rows are dropped. Returns the user or room.
-- $1 an hour before the check, $2 the first id of that time, $3 event of an item that arrived again, which has an old
-- number.
with numbers as (
  select shard, user_id as stream_id, seq, arrived_at >= $1 as is_new, false as is_message from inbox_items
  union all
  select shard, room_id, seq, chat_id >= $2, true from chat_messages
  union all
  select shard, stream_id, seq, event_id >= $2 and event <> $3, false from stream_events
),
streams as (
  select shard, stream_id, max(seq) as top, max(seq) filter (where not is_message) as top_event,
    count(*) - count(distinct seq) as doubles,
    min(seq) filter (where is_new) as first_new
  from numbers
  group by shard, stream_id
),
new_ones as (
  select n.shard, n.stream_id, count(distinct n.seq) as n
  from numbers n
  join streams s on s.shard = n.shard and s.stream_id = n.stream_id
  where n.seq >= s.first_new
  group by n.shard, n.stream_id
),
heads as (
  select shard, user_id as stream_id, seq from user_heads
  union all
  select shard, room_id, seq from room_gates
)
select s.stream_id as "message_id!", 0::smallint as "no!",
  format('the stream of user or room %s has its head at %s, its last event at %s, %s numbers twice, %s since %s',
    s.stream_id, coalesce(h.seq::text, 'nothing'), s.top, s.doubles, coalesce(n.n, 0),
    coalesce(s.first_new::text, 'no time')) as "found!"
from streams s
left join heads h on h.shard = s.shard and h.stream_id = s.stream_id
left join new_ones n on n.shard = s.shard and n.stream_id = s.stream_id
where h.seq is null or s.top_event > h.seq or s.doubles > 0 or n.n <> greatest(h.seq, s.top) - s.first_new + 1
