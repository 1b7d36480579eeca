-- The role of this session, and its rights that the hub's role should not have.
select current_user::text as "name!", r.rolsuper as "superuser!", r.rolcreaterole as "creates_roles!",
  pg_get_userbyid(o.relowner)::text as owner,
  coalesce(pg_has_role(o.relowner, 'member'), false) as "is_owner!",
  exists (select from pg_partition_tree(to_regclass('public.audit')) t
    where has_table_privilege(t.relid, 'update, delete, truncate')) as "rewrites_audit!",
  exists (select from pg_namespace n, aclexplode(n.nspacl) a
    where n.nspname = 'public' and a.grantee = 0 and a.privilege_type = 'CREATE') as "public_creates!"
from pg_roles r
left join pg_class o on o.oid = to_regclass('public._sqlx_migrations')
where r.rolname = current_user
