-- Blocks a user for another, unless it already is, or the other has blocked so many. Returns whether it is blocked.
-- $1 shard, $2 user_id, $3 blocked_id, $4 now, $5 blocks at most.
with new as (
  insert into user_blocks (shard, user_id, blocked_id, at)
  select $1, $2, $3, $4
  where (select count(*) from user_blocks b where b.shard = $1 and b.user_id = $2) < $5
  on conflict do nothing
  returning blocked_id
)
select exists (select from new) or exists (
  select from user_blocks b where b.shard = $1 and b.user_id = $2 and b.blocked_id = $3) as "blocked!"
