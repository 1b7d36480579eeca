-- Number of rejected attempts that another attempt followed.
select count(*) as "n!"
from attempts a
join attempts b on b.shard = a.shard and b.message_id = a.message_id and b.no = a.no and b.attempt = a.attempt + 1
where a.outcome = 'REJECTED'
