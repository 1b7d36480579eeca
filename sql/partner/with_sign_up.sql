-- Up to two active partners whose sign-up is on.
select partner_id, name, shard, status::text as "status!", rate_limit_tps, lookup_days, retention_days, time_zone,
  region, channels, may_schedule, may_cancel, encrypt_content, may_receive_content, sign_up
from partners where sign_up and status = 'ACTIVE' order by partner_id limit 2
