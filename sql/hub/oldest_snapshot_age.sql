-- Age in seconds of the oldest snapshot held by another session, null if there is none: dead rows since then cannot be
-- vacuumed.
select extract(epoch from max(clock_timestamp() - xact_start))::float8 as "age_s"
from pg_stat_activity where backend_xmin is not null and pid <> pg_backend_pid()
