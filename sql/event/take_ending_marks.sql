-- Deletes and returns marks of messages of which a delivery ended. Marks locked by another process are skipped.
-- $1 rows at most.
delete from endings
where ctid = any(array(select ctid from endings limit $1 for update skip locked))
returning shard, message_id, partner_id
