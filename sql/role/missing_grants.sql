-- The statements that give notihub_app and notihub_enqueue the rights they lack and revoke those they should not have.
-- Covers only objects of the schema's owner in the schemas public and notihub, and only roles that exist. The hub's
-- role reads and writes every table, truncates none, and can only read and append to the audit log; partitions are
-- written through their parents alone.
with owner as (select relowner as id from pg_class where oid = to_regclass('public._sqlx_migrations')),
app as (select oid as id from pg_roles where rolname = 'notihub_app'),
intake as (select oid as id from pg_roles where rolname = 'notihub_enqueue'),
spaces as (select oid, nspname from pg_namespace where nspname in ('public', 'notihub')),
tables as (
  select c.oid, format('%I.%I', s.nspname, c.relname) as object, c.relacl, p.privilege,
    case
      when p.privilege = 'SELECT' then true
      when c.relname = '_sqlx_migrations' or c.relkind = 'v' or c.relispartition then false
      when c.relname = 'audit' then p.privilege = 'INSERT'
      else p.privilege in ('INSERT', 'UPDATE', 'DELETE')
    end as wanted
  from pg_class c
  join spaces s on s.oid = c.relnamespace
  join owner on owner.id = c.relowner
  cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p(privilege)
  where c.relkind in ('r', 'p', 'v')
),
functions as (
  select f.oid, s.nspname, f.oid::regprocedure::text as object, f.proacl
  from pg_proc f
  join spaces s on s.oid = f.pronamespace
  join owner on owner.id = f.proowner
  -- What processes call.
  where f.prosecdef or f.proname = 'lock_room_gates'
)
select statement as "statement!" from (
  select 1, format('grant usage on schema %I to notihub_app', s.nspname)
  from spaces s, app where not has_schema_privilege(app.id, s.oid, 'usage')
  union all
  select 1, 'grant usage on schema notihub to notihub_enqueue'
  from spaces s, intake where s.nspname = 'notihub' and not has_schema_privilege(intake.id, s.oid, 'usage')
  union all
  select 1, format('grant connect on database %I to %I', current_database(), r.rolname)
  from pg_roles r
  where r.rolname in ('notihub_app', 'notihub_enqueue')
    and not has_database_privilege(r.oid, current_database(), 'connect')
  union all
  select 2, format('grant %s on table %s to notihub_app', lower(t.privilege), t.object)
  from tables t, app where t.wanted and not has_table_privilege(app.id, t.oid, t.privilege)
  union all
  select 3, format('revoke %s on table %s from notihub_app', lower(t.privilege), t.object)
  from tables t, app
  where not t.wanted
    and exists (select from aclexplode(t.relacl) a where a.grantee = app.id and a.privilege_type = t.privilege)
  union all
  select 4, format('grant usage on sequence %I.%I to notihub_app', s.nspname, c.relname)
  from pg_class c
  join spaces s on s.oid = c.relnamespace
  join owner on owner.id = c.relowner
  cross join app
  where c.relkind = 'S' and not has_sequence_privilege(app.id, c.oid, 'usage')
  union all
  select 5, format('revoke all on function %s from public', f.object)
  from functions f
  where f.proacl is null or exists (select from aclexplode(f.proacl) a where a.grantee = 0)
  union all
  select 6, format('grant execute on function %s to notihub_app', f.object)
  from functions f, app where f.nspname = 'public' and not has_function_privilege(app.id, f.oid, 'execute')
  union all
  select 6, format('grant execute on function %s to notihub_enqueue', f.object)
  from functions f, intake where f.nspname = 'notihub' and not has_function_privilege(intake.id, f.oid, 'execute')
) all_kinds (rank, statement)
order by rank, statement
