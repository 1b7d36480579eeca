-- Adds an event to a room's stream and returns its number.
-- $1 shard, $2 room_id, $3 event_id, $4 event, $5 about, $6 actor.
with locked as (
  select seq from lock_room_gates(array[$1::smallint], array[$2::bigint])
),
head as (
  update room_gates g set seq = l.seq + 1 from locked l where g.shard = $1 and g.room_id = $2 returning g.seq
)
insert into stream_events (shard, stream_id, seq, event_id, event, about, actor)
select $1, $2, seq, $3, $4, $5, $6 from head
returning seq
