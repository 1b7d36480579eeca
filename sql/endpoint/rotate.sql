-- A new secret; the one before is kept for a while, or not. $1 partner, $2 its shard, $3 endpoint_id, $4 secret,
-- $5 former_secret, $6 former_until, $7 now.
update endpoints set secret = $4, former_secret = $5, former_until = $6, updated_at = $7
where partner_id = $1 and shard = $2 and endpoint_id = $3
