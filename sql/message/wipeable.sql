-- A partner's messages in a range of ids, oldest first, and whether something of them is still open.
-- $1 partner, $2 its shard, $3 from this id on, $4 below this id, $5 rows.
select m.message_id, exists (
    select from deliveries d
    where d.shard = m.shard and d.message_id = m.message_id
      and d.status = any('{SCHEDULED,PENDING,PROCESSING}'::delivery_status[])
  ) as "open!"
from messages m
where m.partner_id = $1 and m.shard = $2 and m.message_id >= $3 and m.message_id < $4
order by m.message_id
limit $5
