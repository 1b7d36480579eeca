-- Holds heads still while late answers are weighed against them. Keys in sorted order, so that two batches never wait for
-- each other in a ring. $1 shard[], $2 message_id[], $3 no[].
select d.no
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no
order by d.shard, d.message_id, d.no
for no key update of d
