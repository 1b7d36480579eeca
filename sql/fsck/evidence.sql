-- The latest signs of life of each lane: the latest ready_at of a delivery whose current attempt was claimed for it,
-- and the latest call. The invariants `turn` and `moving` judge by them.
-- $1 shard, $2 message_id from this on, $3 message_id below this, $4 only attempts that were claimed or called after
-- this.
select d.lane as "lane!",
  max(d.ready_at) filter (where a.attempt = d.attempt and a.claimed_at >= d.ready_at) as ready_at,
  max(a.called_at) as called_at
from attempt_history a
join deliveries d using (message_id, no)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3 and (a.claimed_at > $4 or a.called_at > $4)
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
group by d.lane
