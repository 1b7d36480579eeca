-- Rooms whose messages are deleted after some days, by their own rule or their partner's.
select r.shard, r.room_id, coalesce(r.retention_days, p.chat_retention_days) as "days!"
from rooms r
join partners p on p.partner_id = r.partner_id
where r.retention_days is not null or p.chat_retention_days is not null
