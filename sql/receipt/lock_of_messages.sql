-- Locks receipts of these messages before their deliveries are locked: the evaluation of receipts locks in the same
-- order.
-- $1 shard, $2 message_id[].
select r.event_key from receipts r
where r.shard = $1 and r.message_id = any($2)
order by r.provider, r.event_key
for update
