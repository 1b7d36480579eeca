-- What a worker holds cannot be taken back from under it: the wish is noted, and honoured if no provider takes it now. Nothing
-- takes the place any more of what was sent or ended before.
-- $1 partner, $2 its shard, $3 message.
update deliveries
set cancel_requested = cancel_requested or status = any('{PROCESSING}'::delivery_status[]),
  has_fallback = has_fallback and status = any('{PROCESSING}'::delivery_status[])
where partner_id = $1 and shard = $2 and message_id = $3
  and (status = any('{PROCESSING}'::delivery_status[])
    or has_fallback and status = any('{SENT,FAILED,EXPIRED,UNDETERMINED}'::delivery_status[]))
