-- Messages one of whose deliveries ended since the last look; what another process looks at is passed over. $1 rows.
delete from endings
where ctid = any(array(select ctid from endings limit $1 for update skip locked))
returning shard, message_id, partner_id
