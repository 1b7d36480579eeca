-- Among the newest devices of each shard, one per master key that sealed any.
-- $1 newest devices per shard to read.
select distinct on (substring(d.token from 1 for 5)) d.token as "token!", d.token_hash as "token_hash!"
from (select distinct shard from partners) s
cross join lateral (
  select n.token, n.token_hash, n.device_id from devices n where n.shard = s.shard order by n.device_id desc limit $1
) d
order by substring(d.token from 1 for 5), d.device_id desc
