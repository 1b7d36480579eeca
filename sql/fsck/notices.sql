-- Every event that a webhook reports is recorded for the message it reports on, as long as that message exists. The
-- orders, and the condition on created_at that always holds, make the planner read the index by `about` and the primary
-- key, whatever the statistics: the other indexes of messages do not bound a slice.
-- $1 shard, $2 about (the message reported on) from this on, $3 about below this.
select n.message_id as "message_id!", 0::smallint as "no!",
  format('tells of event %s-%s of %s, which is not in the books', n.no, n.seq, n.about) as "found!"
from (
  select message_id, about, (detail #>> '{contents,0,event,no}')::smallint as no,
    (detail #>> '{contents,0,event,seq}')::smallint as seq
  from messages
  where shard = $1 and about >= $2 and about < $3 and about <> message_id
  order by about
) n
join (
  select message_id
  from messages
  where shard = $1 and message_id >= $2 and message_id < $3 and created_at > '-infinity'
  order by message_id
) m on m.message_id = n.about
left join (
  select message_id, no, seq from event_history where shard = $1 and message_id >= $2 and message_id < $3
) e on e.message_id = n.about and e.no = n.no and e.seq = n.seq
-- An erased webhook message names no event any more.
where n.seq is not null and e.seq is null
