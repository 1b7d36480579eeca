-- Writes the profile of a user.
-- $1 shard, $2 user_id, $3 nickname, $4 shown_as, $5 bio, $6 profile_image_url, $7 background_image_url, $8 email, $9
-- phone, $10 locale, $11 time_zone, $12 now.
update users set nickname = $3, shown_as = $4, bio = $5, profile_image_url = $6, background_image_url = $7, email = $8,
  phone = $9, locale = $10, time_zone = $11, updated_at = $12
where shard = $1 and user_id = $2
