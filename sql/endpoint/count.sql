-- How many endpoints a partner has. $1 partner, $2 its shard.
select count(*) as "endpoints!" from endpoints where partner_id = $1 and shard = $2 and status <> 'DELETED'
