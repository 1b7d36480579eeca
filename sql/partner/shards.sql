-- The shards that anything lives on.
select distinct shard from partners order by shard
