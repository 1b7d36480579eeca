-- Marks messages of which a delivery ended, where settle does not do it, for partners that have an endpoint subscribed
-- to 'message.completed'.
-- $1 shard[], $2 message_id[], $3 partner_id[].
insert into endings (shard, message_id, partner_id)
select distinct n.shard, n.message_id, n.partner_id
from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as n(shard, message_id, partner_id)
join endpoints e on e.shard = n.shard and e.partner_id = n.partner_id
where e.status in ('ACTIVE', 'PAUSED') and (e.events is null or 'message.completed' = any(e.events))
