-- What workers hold now, of each lane. $1 shards.
select lane, count(*) as "held!" from deliveries
where shard = any($1) and status = 'PROCESSING'
group by lane
