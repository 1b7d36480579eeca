-- Dead rows of all tables, as the server's statistics count them.
select coalesce(sum(n_dead_tup), 0)::bigint as "dead!" from pg_stat_user_tables
