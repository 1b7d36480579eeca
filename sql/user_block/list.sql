-- The users that a user has blocked, the newest of them first.
-- $1 shard, $2 user_id, $3 blocked_id below this, $4 rows at most.
select u.shard, u.user_id, u.partner_id, u.external_id, u.username, u.nickname, u.user_code, u.shown_as, u.bio,
  u.profile_image_url, u.background_image_url, u.email, u.phone, u.locale, u.time_zone, u.state::text as "state!",
  u.tokens_after, u.last_seen_at, u.created_at, u.updated_at
from user_blocks b
join users u on u.shard = b.shard and u.user_id = b.blocked_id
where b.shard = $1 and b.user_id = $2 and b.blocked_id < $3
order by b.blocked_id desc
limit $4
