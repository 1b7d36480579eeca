-- Whose endpoint that is, for those who see several partners'. $1 endpoint_id.
select partner_id from endpoints where endpoint_id = $1 and status <> 'DELETED'
