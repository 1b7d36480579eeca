-- Nothing is parked for it any more, unless it was resumed anew. $1 endpoint_id, $2 resumed_at as it was seen.
update endpoints set resumed_at = null where endpoint_id = $1 and resumed_at = $2
