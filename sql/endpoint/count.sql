-- How many endpoints a partner has, and how many it deleted of late. $1 partner, $2 its shard, $3 since when.
select count(*) filter (where status <> 'DELETED') as "endpoints!",
  count(*) filter (where status = 'DELETED' and updated_at >= $3) as "deleted!"
from endpoints
where partner_id = $1 and shard = $2
