-- A user of a partner, and whether the sign-in that a token belongs to still stands: it has refresh tokens, none of
-- them revoked.
-- $1 shard, $2 partner_id, $3 user_id, $4 family of refresh tokens (null: the token belongs to no sign-in), $5
-- client_id of the family.
select shard, user_id, partner_id, external_id, username, nickname, user_code, shown_as, bio, profile_image_url,
  background_image_url, email, phone, locale, time_zone, state::text as "state!", tokens_after, last_seen_at,
  created_at, updated_at,
  ($4::bigint is null or exists (
    select from refresh_tokens t where t.family = $4 and t.client_id = $5 and t.revoked_at is null)) as "stands!"
from users
where shard = $1 and partner_id = $2 and user_id = $3
