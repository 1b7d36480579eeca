-- Clears resumed_at after all parked deliveries were released, unless the endpoint was resumed again since it was read.
-- $1 endpoint_id, $2 resumed_at as it was read.
update endpoints set resumed_at = null where endpoint_id = $1 and resumed_at = $2
