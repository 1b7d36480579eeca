-- Replaces the sealed values of an endpoint.
-- $1 endpoint_id, $2 headers, $3 secret, $4 former_secret.
update endpoints set headers = $2, secret = $3, former_secret = $4 where endpoint_id = $1
