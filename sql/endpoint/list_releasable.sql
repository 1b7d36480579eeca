-- Endpoints whose parked deliveries have to be released: they were resumed, disabled or deleted, or are no longer
-- ordered.
select shard, endpoint_id, resumed_at as "resumed_at!", ordered and status = 'ACTIVE' as "in_order!"
from endpoints
where resumed_at is not null and status <> 'PAUSED'
order by resumed_at
