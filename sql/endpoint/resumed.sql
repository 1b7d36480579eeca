-- Endpoints of which something may be parked that is to go: they were resumed, or will never be.
select shard, endpoint_id, recipient, resumed_at as "resumed_at!"
from endpoints
where resumed_at is not null and status <> 'PAUSED'
order by resumed_at
