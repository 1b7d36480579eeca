-- A room has its gate, and as many members as the gate says; a message that came after the one that the gate names has
-- a higher number among the messages, and messages are numbered without a gap (the oldest may be deleted); no member
-- has read further than there are messages; a room of two has two members. Returns the room.
with counted as (
  select shard, room_id, count(*) filter (where left_at is null) as n, max(greatest(read_no, delivered_no)) as read_no
  from members
  group by shard, room_id
),
lasts as (
  select shard, room_id, max(seq) as seq, max(no) as no, max(no) - min(no) + 1 - count(*) as missing
  from chat_messages
  group by shard, room_id
)
select r.room_id as "message_id!", 0::smallint as "no!",
  format('the gate says %s members, there are %s; the last message is %s with number %s (%s missing), the gate '
    'says %s with %s; the highest mark is %s', coalesce(g.members::text, 'nothing'), coalesce(m.n, 0),
    coalesce(c.seq, 0), coalesce(c.no, 0), coalesce(c.missing, 0), g.last_seq, g.no, coalesce(m.read_no, 0))
    as "found!"
from rooms r
left join partners p on p.partner_id = r.partner_id
left join room_gates g on g.shard = r.shard and g.room_id = r.room_id
left join counted m on m.shard = r.shard and m.room_id = r.room_id
left join lasts c on c.shard = r.shard and c.room_id = r.room_id
where g.members is distinct from coalesce(m.n, 0) or p.shard is distinct from r.shard
  or sign(c.seq - g.last_seq) <> sign(c.no - g.no) or c.missing <> 0 or m.read_no > greatest(g.no, c.no)
  or (r.kind = 'INDIVIDUAL' and m.n is distinct from 2)
