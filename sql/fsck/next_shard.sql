-- The lowest shard above $1 that has rows.
-- $1 shard.
select min(shard)
from (
  (select shard from messages where shard > $1 order by shard limit 1) union all
  (select shard from deliveries where shard > $1 order by shard limit 1) union all
  (select shard from attempts where shard > $1 order by shard limit 1) union all
  (select shard from events where shard > $1 order by shard limit 1) union all
  (select shard from idempotency where shard > $1 order by shard limit 1)
) next_of_table
