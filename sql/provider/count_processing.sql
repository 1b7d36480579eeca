-- Number of PROCESSING deliveries of each lane.
-- $1 shard[].
select lane, count(*) as "processing!" from deliveries
where shard = any($1) and status = 'PROCESSING'
group by lane
