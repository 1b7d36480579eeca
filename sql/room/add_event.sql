-- Adds an event to a room's stream and returns its number.
-- $1 shard, $2 room_id, $3 event_id, $4 event, $5 about, $6 actor.
with locked as (
  select seq from lock_room_heads(array[$1::smallint], array[$2::bigint])
),
head as (
  update room_heads h set seq = l.seq + 1 from locked l where h.shard = $1 and h.room_id = $2 returning h.seq
)
insert into stream_events (shard, stream_id, seq, event_id, event, about, actor)
select $1, $2, seq, $3, $4, $5, $6 from head
returning seq
