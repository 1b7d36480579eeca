-- The partner of an endpoint, for callers that see several partners' endpoints.
-- $1 endpoint_id.
select partner_id from endpoints where endpoint_id = $1 and status <> 'DELETED'
