-- Everything lives on its partner's shard. Names one message of each partner and wrong shard. Counted before the join,
-- so that no hash table holds every message of a partner. Message ids from $1 up to, not including, $2.
select m.first as "message_id!", 0::smallint as "no!",
  format('on shard %s, its partner on %s, with %s others', m.shard, p.shard, m.n - 1) as "found!"
from (
  select shard, partner_id, min(message_id) as first, count(*) as n
  from messages
  where message_id >= $1 and message_id < $2
  group by shard, partner_id
) m
join partners p using (partner_id)
where p.shard <> m.shard
