-- Every message is on its partner's shard. Returns one message per partner and wrong shard. Counted before the join, so
-- that no hash table holds every message of a partner.
-- $1 message_id from this on, $2 message_id below this.
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
