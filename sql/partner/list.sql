-- All partners, by name.
-- $1 name after this (null: from the first), $2 rows at most.
select partner_id, name, shard, status::text as "status!", rate_limit_tps, lookup_days, retention_days, time_zone,
  region, channels, may_schedule, may_cancel, encrypt_content, may_receive_content, sign_up
from partners where ($1::text is null or name > $1) order by name limit $2
