-- The latest deletion of a user that had this external id.
-- $1 shard, $2 partner_id, $3 former_external_hash.
select max(deleted_at) as deleted_at
from users
where shard = $1 and partner_id = $2 and former_external_hash = $3
