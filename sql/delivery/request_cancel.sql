-- Marks the PROCESSING deliveries of a message as to be canceled; they end CANCELED if the provider does not accept
-- them now. Deliveries that are already settled lose their unused fallback.
-- $1 partner_id, $2 its shard, $3 message_id.
update deliveries
set cancel_requested = cancel_requested or status = any('{PROCESSING}'::delivery_status[]),
  has_fallback = has_fallback and status = any('{PROCESSING}'::delivery_status[])
where partner_id = $1 and shard = $2 and message_id = $3
  and (status = any('{PROCESSING}'::delivery_status[])
    or has_fallback and status = any('{SENT,FAILED,EXPIRED,UNDETERMINED}'::delivery_status[]))
