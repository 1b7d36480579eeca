-- A user by its id alone, looked for in these shards.
-- $1 shards, $2 user_id.
select shard, user_id, partner_id, external_id, username, nickname, user_code, shown_as, bio, profile_image_url,
  background_image_url, email, phone, locale, time_zone, state::text as "state!", tokens_after, last_seen_at,
  created_at, updated_at
from users
where shard = any($1) and user_id = $2
