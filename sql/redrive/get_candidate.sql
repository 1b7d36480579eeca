-- A delivery with the columns that decide whether it can be redriven.
-- $1 partner_id, $2 its shard, $3 message_id, $4 no.
select message_id, no, lane, status::text as "status!", attempt, event_seq, content, settled_at, recipient,
  exists (
    select from deliveries o
    where o.shard = d.shard and o.message_id = d.message_id and o.chain = d.chain and o.no > d.no
  ) as "replaced!"
from deliveries d
where partner_id = $1 and shard = $2 and message_id = $3 and no = $4
