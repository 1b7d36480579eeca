-- Takes over what a partner's token says of its user. Null: it says nothing.
-- $1 shard, $2 user_id, $3 nickname, $4 profile_image_url, $5 locale, $6 now.
update users set nickname = coalesce($3, nickname), profile_image_url = coalesce($4, profile_image_url),
  locale = coalesce($5, locale), updated_at = $6
where shard = $1 and user_id = $2 and state <> 'DELETED'
