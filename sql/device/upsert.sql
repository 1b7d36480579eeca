-- Registers a device of a user. A token that another user of the partner had moves to this one.
-- $1 shard, $2 device_id, $3 user_id, $4 partner_id, $5 platform, $6 app, $7 token, $8 token_hash, $9 now.
insert into devices as d (shard, device_id, user_id, partner_id, platform, app, token, token_hash, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (shard, partner_id, token_hash) do update set
  device_id = case when d.user_id = excluded.user_id then d.device_id else excluded.device_id end,
  created_at = case when d.user_id = excluded.user_id then d.created_at else excluded.created_at end,
  user_id = excluded.user_id, platform = excluded.platform, app = excluded.app, token = excluded.token,
  disabled_at = null, reason = null
returning device_id, created_at
