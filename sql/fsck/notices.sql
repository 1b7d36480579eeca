-- Every event that a webhook reports is recorded for the message it reports on, as long as that message exists. A
-- webhook message is younger than the message it reports on.
-- $1 about (the message reported on) from this on, $2 about below this.
select n.message_id as "message_id!", 0::smallint as "no!",
  format('tells of event %s-%s of %s, which is not in the books', n.no, n.seq, n.about) as "found!"
from (
  select shard, message_id, about, (detail #>> '{contents,0,event,no}')::smallint as no,
    (detail #>> '{contents,0,event,seq}')::smallint as seq
  from messages
  where message_id >= $1 and about >= $1 and about < $2 and about <> message_id
) n
join messages m on m.shard = n.shard and m.message_id = n.about and m.message_id >= $1 and m.message_id < $2
left join (
  select shard, message_id, no, seq from event_history where message_id >= $1 and message_id < $2
) e on e.shard = n.shard and e.message_id = n.about and e.no = n.no and e.seq = n.seq
-- An erased webhook message names no event any more.
where n.seq is not null and e.seq is null
