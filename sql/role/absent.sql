-- Which of these roles the server does not have. $1 names[].
select name as "name!" from unnest($1::text[]) as wanted(name)
where name not in (select rolname::text from pg_roles)
