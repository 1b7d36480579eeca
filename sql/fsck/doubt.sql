-- An attempt of unknown outcome marks its delivery as possibly sent.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select d.message_id as "message_id!", d.no as "no!", format('attempt %s unknown', a.attempt) as "found!"
from attempts a
join deliveries d using (shard, message_id, no)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and a.outcome = 'UNKNOWN' and not d.possibly_sent
