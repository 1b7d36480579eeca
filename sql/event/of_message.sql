-- Events of a message's deliveries, by delivery and sequence number.
-- $1 partner_id, $2 its shard, $3 message_id.
select e.no as "no!", e.seq as "seq!", e.attempt as "attempt!", e.event as "event!", e.reason,
  e.occurred_at as "occurred_at!"
from event_history e
join deliveries d on d.shard = e.shard and d.message_id = e.message_id and d.no = e.no
where d.partner_id = $1 and e.shard = $2 and e.message_id = $3
order by e.no, e.seq
