-- Everything lives on its partner's shard.
select m.message_id as "message_id!", 0::smallint as "no!", format('on shard %s, its partner on %s', m.shard, p.shard) as "found!"
from messages m
join partners p using (partner_id)
where p.shard <> m.shard
