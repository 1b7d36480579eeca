-- The hub's tables as the catalogue has them, each with its columns that may hold text: all but numbers, booleans,
-- times and enumerations. A partition is read through its table. `notihub.requests` comes first: rows move from there
-- into tables that are read later.
with columns as (
  select a.attrelid, a.attnum, a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
    coalesce(e.typcategory, t.typcategory) not in ('N', 'B', 'D', 'T', 'E') as is_text
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  left join pg_type e on t.typcategory = 'A' and e.oid = t.typelem
  where a.attnum > 0 and not a.attisdropped
)
select s.nspname::text as "schema!", c.relname::text as "name!",
  has_table_privilege(c.oid, 'select') as "readable!",
  coalesce((select array_agg(k.name order by k.attnum) from columns k where k.attrelid = c.oid), '{}')
    as "all_columns!",
  coalesce((select array_agg(k.name order by k.attnum) from columns k where k.attrelid = c.oid and k.is_text), '{}')
    as "columns!",
  coalesce((select array_agg(k.type order by k.attnum) from columns k where k.attrelid = c.oid and k.is_text), '{}')
    as "types!",
  coalesce((select array_agg(k.name order by k.attnum) from columns k
    join pg_index i on i.indrelid = c.oid and i.indisprimary and k.attnum = any(i.indkey)
    where k.attrelid = c.oid), '{}')
    as "key!",
  coalesce((select array_agg(k.type order by k.attnum) from columns k
    join pg_index i on i.indrelid = c.oid and i.indisprimary and k.attnum = any(i.indkey)
    where k.attrelid = c.oid), '{}')
    as "key_types!"
from pg_class c
join pg_namespace s on s.oid = c.relnamespace
where s.nspname in ('public', 'notihub') and c.relkind in ('r', 'p', 'm') and not c.relispartition
order by s.nspname, c.relname <> 'requests', c.relname
