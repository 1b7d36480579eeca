-- A partner by name.
-- $1 name.
select partner_id, name, shard, status::text as "status!", rate_limit_tps, lookup_days, retention_days, time_zone,
  region, channels, may_schedule, may_cancel, encrypt_content, may_receive_content, sign_up
from partners where name = $1
