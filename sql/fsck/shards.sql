-- Every message is on its partner's shard. Returns one message per partner and slice. Counted before the join, so that
-- no hash table holds every message of a partner. The order, and the condition on created_at that always
-- holds, make the planner read the primary key, whatever the statistics: another index has all columns that are
-- needed, and does not bound a slice.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select m.first as "message_id!", 0::smallint as "no!",
  format('on shard %s, its partner on %s, with %s others', $1::smallint, p.shard, m.n - 1) as "found!"
from (
  select partner_id, min(message_id) as first, count(*) as n
  from (
    select message_id, partner_id
    from messages
    where shard = $1 and message_id >= $2 and message_id < $3 and created_at > '-infinity'
    order by message_id
  ) of_slice
  group by partner_id
) m
join partners p using (partner_id)
where p.shard <> $1
