-- Inserts messages with one delivery each, as intake would have written them.
-- $1 partner_id, $2 shard, $3 first message_id, $4 number of messages (their ids are consecutive), $5 lane, $6 status
-- (SENT and FAILED get one attempt; SENT ones have its record in their row), $7 created_at, $8 ready_at of the first,
-- $9 detail (JSON text), $10 kind.
with m as (
  insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at)
  select $2, $3 + n, $1, $10::text, 'NORMAL', $9::text::jsonb, $7 from generate_series(0, $4::bigint - 1) as n
)
insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, recipient,
  attempt, event_seq, settled_at, provider, reason, sent_worker, sent_claimed_at, sent_called_at)
select $2, $3 + n, 1, $5, 3, 0, ($6::text)::delivery_status, $1, $8::timestamptz + n * interval '1 microsecond',
  'someone@example.com', ended::int, ended::int, case when ended then $8::timestamptz end,
  case when ended then 'noop' end, case when $6 = 'FAILED' then 'address' end, case when $6 = 'SENT' then 1 end,
  case when $6 = 'SENT' then $8::timestamptz end, case when $6 = 'SENT' then $8::timestamptz end
from generate_series(0, $4::bigint - 1) as n, (select $6 in ('SENT', 'FAILED')) as e(ended)
