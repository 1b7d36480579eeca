-- The client id of a partner's key.
-- $1 partner_id.
select client_id from keys where partner_id = $1
