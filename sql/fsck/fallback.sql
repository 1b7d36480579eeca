-- A delivery is replaced by a fallback once, with its event; an unused fallback has no delivery.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
with d as materialized (
  select message_id, no, chain
  from deliveries
  where shard = $1 and message_id >= $2 and message_id < $3 and chain is not null
)
select d.message_id as "message_id!", d.no as "no!",
  format('%s stands for %s, which is not there', d.no, d.chain) as "found!"
from d
left join d o on o.message_id = d.message_id and o.no = d.chain and o.chain = o.no
where d.chain <> d.no and o.no is null
union all
select c.message_id, c.chain, format('%s deliveries in its chain, %s times told', c.n, coalesce(t.told, 0))
from (
  select message_id, chain, count(*) as n from d group by message_id, chain
) c
left join (
  select d.message_id, d.chain, count(*) as told
  from d
  join events e using (message_id, no)
  where e.shard = $1 and e.message_id >= $2 and e.message_id < $3 and e.event = 'delivery.fallback'
  group by d.message_id, d.chain
) t using (message_id, chain)
where c.n <> coalesce(t.told, 0) + 1
