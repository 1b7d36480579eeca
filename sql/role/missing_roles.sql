-- Names of roles that the server does not have.
-- $1 name[].
select name as "name!" from unnest($1::text[]) as wanted(name)
where name not in (select rolname::text from pg_roles)
