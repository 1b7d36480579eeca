-- The oldest snapshot held by anybody: dead rows since then cannot be cleaned away. Seconds; null when there is none.
select extract(epoch from max(clock_timestamp() - xact_start))::float8 as "age_s"
from pg_stat_activity where backend_xmin is not null and pid <> pg_backend_pid()
