-- Sets a new secret, and the former one with the time until which it is still used for signatures.
-- $1 partner_id, $2 its shard, $3 endpoint_id, $4 secret (sealed), $5 former_secret (sealed, or null), $6 former_until,
-- $7 now.
update endpoints set secret = $4, former_secret = $5, former_until = $6, updated_at = $7
where partner_id = $1 and shard = $2 and endpoint_id = $3
