-- A delivery is replaced by a fallback once, with its event; an unused fallback has no delivery.
-- $1 message_id from this on, $2 message_id below this.
select d.message_id as "message_id!", d.no as "no!",
  format('%s stands for %s, which is not there', d.no, d.chain) as "found!"
from deliveries d
left join (
  select shard, message_id, no
  from deliveries
  where message_id >= $1 and message_id < $2 and chain = no
) o on o.shard = d.shard and o.message_id = d.message_id and o.no = d.chain
where d.message_id >= $1 and d.message_id < $2 and d.chain <> d.no and o.no is null
union all
select c.message_id, c.chain, format('%s deliveries in its chain, %s times told', c.n, coalesce(t.told, 0))
from (
  select shard, message_id, chain, count(*) as n
  from deliveries
  where message_id >= $1 and message_id < $2 and chain is not null
  group by shard, message_id, chain
) c
left join (
  select d.shard, d.message_id, d.chain, count(*) as told
  from events e
  join deliveries d using (shard, message_id, no)
  where e.message_id >= $1 and e.message_id < $2 and d.message_id >= $1 and d.message_id < $2
    and e.event = 'delivery.fallback'
  group by d.shard, d.message_id, d.chain
) t using (shard, message_id, chain)
where c.n <> coalesce(t.told, 0) + 1
