-- Dead rows that statistics know of.
select coalesce(sum(n_dead_tup), 0)::bigint as "dead!" from pg_stat_user_tables
