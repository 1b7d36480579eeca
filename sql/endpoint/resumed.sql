-- Endpoints of which something may be parked that is to go: they were resumed, or will never be; or gave up their order.
select shard, endpoint_id, resumed_at as "resumed_at!", ordered and status = 'ACTIVE' as "in_order!"
from endpoints
where resumed_at is not null and status <> 'PAUSED'
order by resumed_at
