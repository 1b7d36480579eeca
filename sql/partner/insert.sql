-- Inserts a partner. Inserts nothing if the name is taken.
-- $1 partner_id, $2 name, $3 shard, $4 now, $5 status, $6 rate_limit_tps, $7 lookup_days, $8 retention_days, $9
-- time_zone, $10 region, $11 channels, $12 may_schedule, $13 may_cancel, $14 encrypt_content, $15 may_receive_content,
-- $16 sign_up.
insert into partners (partner_id, name, shard, created_at, status, rate_limit_tps, lookup_days, retention_days,
  time_zone, region, channels, may_schedule, may_cancel, encrypt_content, may_receive_content, sign_up)
values ($1, $2, $3, $4, ($5::text)::partner_status, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
on conflict (name) do nothing
returning partner_id
