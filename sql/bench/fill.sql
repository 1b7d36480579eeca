-- Makes messages with one delivery each, as intake would have written them. $1 partner, $2 shard, $3 first message id,
-- $4 how many (their ids follow each other), $5 lane, $6 status, $7 created_at, $8 ready_at, $9 detail (JSON text).
with m as (
  insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at)
  select $2, $3 + n, $1, 'BENCH', 'NORMAL', $9::text::jsonb, $7 from generate_series(0, $4::bigint - 1) as n
)
insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, recipient,
  attempt, event_seq, settled_at, provider)
select $2, $3 + n, 1, $5, 3, 0, ($6::text)::delivery_status, $1, $8::timestamptz + n * interval '1 microsecond',
  'someone@example.com', ($6 = 'SENT')::int, ($6 = 'SENT')::int, case when $6 = 'SENT' then $8::timestamptz end,
  case when $6 = 'SENT' then 'noop' end
from generate_series(0, $4::bigint - 1) as n
