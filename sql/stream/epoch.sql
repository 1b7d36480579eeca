-- What distinguishes this history of the database from others: the cluster, and the timeline that a promotion changes.
select c.system_identifier as "system_identifier!",
  (case when pg_is_in_recovery() then '' else left(pg_walfile_name(pg_current_wal_lsn()), 8) end) as "timeline!"
from pg_control_system() c
