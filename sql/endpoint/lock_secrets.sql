-- Locks endpoints in the order of their ids and returns their sealed values, to be sealed again under another master
-- key.
-- $1 endpoint_id after this, $2 rows at most.
select endpoint_id, headers, secret, former_secret from endpoints where endpoint_id > $1 order by endpoint_id limit $2
for update
