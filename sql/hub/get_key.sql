-- A key of this installation, if it exists.
-- $1 name.
select key from hub_keys where name = $1
