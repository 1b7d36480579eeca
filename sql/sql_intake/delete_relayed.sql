-- Deletes requests that became messages in this transaction.
-- $1 request_id[].
delete from notihub.requests where request_id = any ($1)
