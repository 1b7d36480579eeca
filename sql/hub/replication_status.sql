-- Whether this server is a standby, and how far it is behind.
select pg_is_in_recovery() as "in_recovery!",
  case when pg_is_in_recovery() then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::bigint end
    as "behind_bytes",
  extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 as "replayed_ago_s",
  exists (select from pg_stat_wal_receiver) as "connected!"
