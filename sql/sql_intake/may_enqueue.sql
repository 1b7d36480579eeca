-- Whether a database role may call notihub.enqueue; null if there is no such role.
-- $1 role.
select (select has_schema_privilege(r.oid, 'notihub', 'usage')
    and has_function_privilege(r.oid, 'notihub.enqueue(text, jsonb)', 'execute')
  from pg_roles r where r.rolname = $1) as may_call
