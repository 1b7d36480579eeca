-- The member that takes over from an owner who leaves: the oldest admin, else the oldest member. No row while another
-- owner is left.
-- $1 shard, $2 room_id.
select user_id
from members m
where shard = $1 and room_id = $2 and left_at is null
  and not exists (
    select from members o where o.shard = $1 and o.room_id = $2 and o.left_at is null and o.role = 'OWNER')
order by role, joined_at, user_id
limit 1
