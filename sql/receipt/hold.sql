-- Receipts about these messages, held still before their deliveries are: whoever applies them takes them in this order, too.
-- $1 shard, $2 message_id[].
select r.event_key from receipts r
where r.shard = $1 and r.message_id = any($2)
order by r.provider, r.event_key
for update
