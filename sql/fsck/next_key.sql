-- The idempotency key that follows so many others of a shard: where a slice of keys ends. The last key if there are
-- fewer; null if there is none.
-- $1 shard, $2 partner_id and $3 client_msg_id after which to begin, $4 number of keys.
select partner_id, client_msg_id
from (
  select partner_id, client_msg_id
  from idempotency
  where shard = $1 and (partner_id, client_msg_id) > ($2, $3::text)
  order by partner_id, client_msg_id
  limit $4
) slice
order by partner_id desc, client_msg_id desc
limit 1
