-- Makes a user that signs up. Makes none if the username or the random code is taken.
-- $1 shard, $2 user_id, $3 partner_id, $4 username, $5 username_key, $6 nickname, $7 user_code, $8 bio, $9
-- profile_image_url, $10 email, $11 now.
insert into users (shard, user_id, partner_id, username, username_key, nickname, user_code, bio, profile_image_url,
  email, created_at, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
on conflict do nothing
