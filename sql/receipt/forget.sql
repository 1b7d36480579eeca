-- Receipts go when the messages do that they are about. $1 received before, $2 rows.
delete from receipts
where ctid = any(array(select ctid from receipts where received_at < $1 limit $2 for update skip locked))
