-- A doubt is never forgotten: an attempt of unknown outcome marks its delivery as possibly sent.
select d.message_id as "message_id!", d.no as "no!", format('attempt %s unknown', a.attempt) as "found!"
from attempts a
join deliveries d using (shard, message_id, no)
where a.outcome = 'UNKNOWN' and not d.possibly_sent
