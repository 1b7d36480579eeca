-- A partner's users, newest first.
-- $1 shard, $2 partner_id, $3 user_id below this, $4 state (null: every one), $5 rows at most.
select shard, user_id, partner_id, external_id, username, nickname, user_code, shown_as, bio, profile_image_url,
  background_image_url, email, phone, locale, time_zone, state::text as "state!", tokens_after, last_seen_at,
  created_at, updated_at
from users
where shard = $1 and partner_id = $2 and user_id < $3 and ($4::text is null or state = ($4::text)::user_state)
order by user_id desc
limit $5
