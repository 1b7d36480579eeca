-- A delivery over INAPP (lanes 60 to 65) that is DELIVERED has its item, and an item has its delivery.
select d.message_id as "message_id!", d.no as "no!", 'DELIVERED, and in no inbox' as "found!"
from deliveries d
left join inbox_items i on i.shard = d.shard and i.message_id = d.message_id and i.no = d.no
where d.lane between 60 and 65 and d.status = 'DELIVERED' and i.user_id is null
union all
select i.message_id, i.no, format('in the inbox of user %s without a delivery', i.user_id)
from inbox_items i
left join deliveries d on d.shard = i.shard and d.message_id = i.message_id and d.no = i.no
where d.message_id is null
