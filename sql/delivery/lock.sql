-- Locks deliveries while late outcomes are compared with them. Locks in the order of the keys, so that two batches
-- cannot deadlock.
-- $1 shard[], $2 message_id[], $3 no[].
select d.no
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no
order by d.shard, d.message_id, d.no
for no key update of d
