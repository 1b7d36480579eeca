-- Deletes receipts as old as the messages that are dropped.
-- $1 received_at before this, $2 rows at most.
delete from receipts
where ctid = any(array(select ctid from receipts where received_at < $1 limit $2 for update skip locked))
