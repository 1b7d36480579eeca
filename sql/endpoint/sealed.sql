-- What is sealed of endpoints, in the order of their ids, held still while it is sealed anew. $1 after this id, $2 rows.
select endpoint_id, headers, secret, former_secret from endpoints where endpoint_id > $1 order by endpoint_id limit $2
for update
