-- A user by its username, with the hash of its password and its failed sign-ins.
-- $1 shard, $2 partner_id, $3 username_key.
select u.shard, u.user_id, u.partner_id, u.external_id, u.username, u.nickname, u.user_code, u.shown_as, u.bio,
  u.profile_image_url, u.background_image_url, u.email, u.phone, u.locale, u.time_zone, u.state::text as "state!",
  u.tokens_after, u.last_seen_at, u.created_at, u.updated_at,
  c.password_hash, c.failures, c.wait_until
from users u
join credentials c on c.shard = u.shard and c.user_id = u.user_id
where u.shard = $1 and u.partner_id = $2 and u.username_key = $3
