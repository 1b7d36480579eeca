-- Deletes suspects that are no longer suspects: their delivery is neither PROCESSING nor set apart, or does not exist.
-- $1 shard[], $2 the ready_at of suspects, $3 message_id (null: all).
delete from suspects s
where s.shard = any($1) and ($3::bigint is null or s.message_id = $3) and not exists (
  select from deliveries d
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and (d.status = 'PROCESSING' or (d.status = 'SCHEDULED' and d.ready_at = $2))
)
