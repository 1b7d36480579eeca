-- $1 name.
select partner_id, name, shard from partners where name = $1
