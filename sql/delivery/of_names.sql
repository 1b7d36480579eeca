-- In-app deliveries addressed to users, of messages before one of each user. Reads all deliveries: once for all users.
-- $1 shard, $2 partner_id, $3 name, $4 message_id below this, of each; $5 first and $6 last lane of the channel.
select d.shard, d.message_id, w.which as "which!"
from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[]) with ordinality
  as w(shard, partner_id, name, below, which)
join deliveries d on d.shard = w.shard and d.recipient = w.name
where d.partner_id = w.partner_id and d.message_id < w.below and d.lane between $5 and $6
