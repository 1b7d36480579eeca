-- Records outcomes that arrived after their lease had ended, on their own attempts: they replace the doubtful outcome
-- that the reaper wrote. The deliveries themselves are not changed here.
-- $1 shard[], $2 message_id[], $3 no[], $4 attempt[], $5 outcome[], $6 called_at[], $7 provider[], $8 code[], $9
-- detail[], $10 provider_ref[], $11 now.
update attempts a
set outcome = l.outcome, late = true, ended_at = $11, called_at = coalesce(l.called_at, a.called_at),
  provider = coalesce(l.provider, a.provider), code = l.code, detail = l.detail, provider_ref = l.provider_ref
from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[]::attempt_outcome[],
  $6::timestamptz[], $7::text[], $8::text[], $9::text[], $10::text[])
  as l(shard, message_id, no, attempt, outcome, called_at, provider, code, detail, provider_ref)
where a.shard = l.shard and a.message_id = l.message_id and a.no = l.no and a.attempt = l.attempt
  and a.outcome = any('{IN_FLIGHT,UNKNOWN}'::attempt_outcome[]) and a.reason = any('{worker_lost,workers_lost}'::text[])
