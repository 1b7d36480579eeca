-- A user of a partner, and whether the sign-in that a token belongs to still stands: it has refresh tokens, none of
-- them revoked. It is looked for as in find.sql.
-- $1 shard, $2 partner_id, $3 user_id, $4 family of refresh tokens (null: the token belongs to no sign-in), $5
-- client_id of the family.
select u.shard, u.user_id, u.partner_id, u.external_id, u.username, u.nickname, u.user_code, u.shown_as, u.bio,
  u.profile_image_url, u.background_image_url, u.email, u.phone, u.locale, u.time_zone, u.state::text as "state!",
  u.tokens_after, u.last_seen_at, u.created_at, u.updated_at,
  ($4::bigint is null or exists (
    select from refresh_tokens t where t.family = $4 and t.client_id = $5 and t.revoked_at is null)) as "stands!"
from (
  select *
  from users x
  where x.shard = $1 and x.user_id between $3 and $3
  order by x.user_id
  limit 1
) u
where u.partner_id = $2
