-- Adds an event to a room's stream and returns its number.
-- $1 shard, $2 room_id, $3 event_id, $4 event, $5 about, $6 actor.
with head as (
  update room_heads set seq = seq + 1 where shard = $1 and room_id = $2 returning seq
)
insert into stream_events (shard, stream_id, seq, event_id, event, about, actor)
select $1, $2, seq, $3, $4, $5, $6 from head
returning seq
