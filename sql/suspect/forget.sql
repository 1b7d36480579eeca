-- Forgets suspects that are none any more: what they held was called and its worker lives, or it ended otherwise, or it is gone.
-- $1 shard[], $2 the time for which suspects are SCHEDULED, $3 of this message only (null: all).
delete from suspects s
where s.shard = any($1) and ($3::bigint is null or s.message_id = $3) and not exists (
  select from deliveries d
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and (d.status = 'PROCESSING' or (d.status = 'SCHEDULED' and d.ready_at = $2))
)
