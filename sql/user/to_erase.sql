-- Deleted users whose messages are not erased yet.
-- $1 rows at most.
select shard, partner_id, user_id, erase_names as "names!", deleted_at as "deleted_at!"
from users
where erase_names is not null
order by user_id
limit $1
