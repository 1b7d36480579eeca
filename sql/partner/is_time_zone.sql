-- Whether the server knows a time zone.
-- $1 name.
select exists (select from pg_timezone_names where name = $1) as "known!"
