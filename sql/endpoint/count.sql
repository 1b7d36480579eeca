-- Number of a partner's endpoints, and of those it deleted recently.
-- $1 partner_id, $2 its shard, $3 deleted at or after this.
select count(*) filter (where status <> 'DELETED') as "endpoints!",
  count(*) filter (where status = 'DELETED' and updated_at >= $3) as "deleted!"
from endpoints
where partner_id = $1 and shard = $2
