-- A user by the partner's own id of it, looked for as in find.sql.
-- $1 shard, $2 partner_id, $3 external_id.
select shard, user_id, partner_id, external_id, username, nickname, user_code, shown_as, bio, profile_image_url,
  background_image_url, email, phone, locale, time_zone, state::text as "state!", tokens_after, last_seen_at,
  created_at, updated_at
from users
where shard = $1 and partner_id = $2 and external_id between $3 and $3
order by external_id
limit 1
