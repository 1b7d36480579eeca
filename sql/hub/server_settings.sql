-- The server settings that durability and `notihub doctor` depend on.
select name as "name!", setting as "setting!", unit from pg_settings
where name = any(array['server_version', 'server_version_num', 'fsync', 'full_page_writes', 'synchronous_commit',
  'max_connections', 'statement_timeout', 'wal_level', 'autovacuum', 'track_counts', 'jit', 'max_wal_size',
  'shared_buffers', 'idle_in_transaction_session_timeout', 'server_encoding'])
order by name
