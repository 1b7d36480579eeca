-- Transactions committed in this database so far. A session reports its own within a second.
select xact_commit::float8 as "n!" from pg_stat_database where datname = current_database()
