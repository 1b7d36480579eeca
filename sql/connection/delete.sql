-- Deletes connections that were closed.
-- $1 connection_id[].
delete from connections where connection_id = any($1)
