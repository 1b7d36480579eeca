-- What endpoints are told happened: the event is in the books of the message it tells of, as long as that is there.
select n.message_id as "message_id!", 0::smallint as "no!",
  format('tells of event %s-%s of %s, which is not in the books', n.no, n.seq, n.about) as "found!"
from (
  select shard, message_id, about, (detail #>> '{contents,0,event,no}')::smallint as no,
    (detail #>> '{contents,0,event,seq}')::smallint as seq
  from messages
  where about <> message_id
) n
-- What is erased names no event any more.
where n.seq is not null and exists (select from messages m where m.shard = n.shard and m.message_id = n.about)
  and not exists (
    select from events e where e.shard = n.shard and e.message_id = n.about and e.no = n.no and e.seq = n.seq)
