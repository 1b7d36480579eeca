-- What a worker holds cannot be taken back from under it: the wish is noted, and honoured if no provider takes it now.
-- $1 partner, $2 its shard, $3 message.
update deliveries set cancel_requested = true
where partner_id = $1 and shard = $2 and message_id = $3 and status = any('{PROCESSING}'::delivery_status[])
returning no
