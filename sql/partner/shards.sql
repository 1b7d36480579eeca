-- The shards that have a partner.
select distinct shard from partners order by shard
