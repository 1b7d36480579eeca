-- The message of the delivery that follows so many others of a shard: where a slice ends. Null: there are fewer.
-- $1 shard, $2 only deliveries of messages after this, $3 number of deliveries to pass.
select message_id
from deliveries
where shard = $1 and message_id > $2
order by message_id
offset $3
limit 1
