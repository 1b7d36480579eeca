-- A partner's messages in a range of ids that name recipients yet, oldest first: how many deliveries each has, and whether one
-- of them is still open. $1 partner, $2 its shard, $3 from this id on, $4 below this id, $5 rows.
select m.message_id, d.deliveries as "deliveries!", d.open as "open!"
from messages m
cross join lateral (
  select count(*) as deliveries, coalesce(bool_or(d.recipient <> 'erased'), false) as named,
    coalesce(bool_or(d.status = any('{SCHEDULED,PENDING,PROCESSING}'::delivery_status[])), false) as open
  from deliveries d
  where d.shard = m.shard and d.message_id = m.message_id
) d
where m.partner_id = $1 and m.shard = $2 and m.message_id >= $3 and m.message_id < $4 and d.named
order by m.message_id
limit $5
