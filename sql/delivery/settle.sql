-- Settle: writes the outcome of many steps at once, each fenced by the status and attempt it started from. In the same
-- statement the attempt's row and the event, for winners alone: they come back, with a wish to cancel that may have come
-- since the step was decided. A step that lost its fence writes nothing here.
-- The status a step started from is bound, not written out: a literal lets the planner take the small partial index on
-- leases and walk its dead entries.
-- $1 shard[], $2 message_id[], $3 no[], $4 attempt[], $5 status it started from[], $6 new status[], $7 ready_at[],
-- $8 possibly_sent[], $9 refund[], $10 event[], $11 reason[], $12 provider[], $13 outcome[] (null: no attempt is ended),
-- $14 worker[], $15 claimed_at[], $16 called_at[], $17 code[], $18 detail[], $19 provider_ref[]: one each per step.
-- $20 now, $21 and $22 the smallest and largest message id (prunes the partitions), $23 begun[]: the attempt's row is
-- there already; what the step changes in the statistics: $24 total[], $25 success[], $26 failed[]. $27 the id of the
-- message that tells of the step's event, if somebody wants to hear of it[]; $28 attempts of a webhook; $29 until when a receipt
-- is waited for[].
-- What is told goes to the partner's endpoints in this statement: whoever sees the event sees that it is on its way. No
-- event of a webhook (lanes 66 to 71) goes to an endpoint.
with head as (
  update deliveries d
  set status = s.status, ready_at = coalesce(s.ready_at, d.ready_at), lease_until = null, worker = null,
    possibly_sent = d.possibly_sent or s.possibly_sent, max_attempts = d.max_attempts + s.refund::int::smallint,
    event_seq = d.event_seq + (s.event is not null)::int::smallint,
    -- While it waits, that somebody asked for it: what was told before that is no news.
    reason = case when s.event is null and d.reason = 'redriven' then d.reason else s.reason end,
    provider = coalesce(s.provider, d.provider), settled_at = case when s.event is not null then $20::timestamptz end,
    receipt_due = s.receipt_due,
    has_fallback = d.has_fallback and s.status not in ('CANCELED', 'EXPIRED')
      and coalesce(s.reason, '') not in ('canceled', 'expired', 'expired_before_retry')
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[]::delivery_status[],
    $6::text[]::delivery_status[], $7::timestamptz[], $8::bool[], $9::bool[], $10::text[], $11::text[], $12::text[],
    $13::text[]::attempt_outcome[], $14::bigint[], $15::timestamptz[], $16::timestamptz[], $17::text[], $18::text[],
    $19::text[], $23::bool[], $24::smallint[], $25::smallint[], $26::smallint[], $27::bigint[],
    $29::timestamptz[])
    as s(shard, message_id, no, attempt, was, status, ready_at, possibly_sent, refund, event, reason, provider, outcome,
      worker, claimed_at, called_at, code, detail, provider_ref, begun, total, success, failed, notice_id,
      receipt_due)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and d.message_id between $21 and $22 and d.status = s.was and d.attempt = s.attempt
  returning d.shard, d.message_id, d.no, d.attempt, d.event_seq, d.cancel_requested, s.event, s.reason, s.ready_at, s.provider, s.outcome,
    s.worker, s.claimed_at, s.called_at, s.code, s.detail, s.provider_ref, s.begun,
    d.partner_id, d.lane, s.total, s.success, s.failed, s.status, s.notice_id
),
tried as (
  insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at, next_at,
    provider, reason, code, detail, provider_ref)
  select shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, $20, ready_at, provider, reason, code,
    detail, provider_ref
  from head
  where outcome is not null and not begun
),
-- Those whose beginning was recorded before their call.
ended as (
  update attempts a
  set outcome = h.outcome, ended_at = $20, next_at = h.ready_at, reason = h.reason, code = h.code, detail = h.detail,
    provider_ref = h.provider_ref, called_at = case when h.outcome <> 'NOT_CALLED' then coalesce(a.called_at, h.called_at) end,
    provider = coalesce(h.provider, a.provider)
  from head h
  where h.outcome is not null and h.begun
    and a.shard = h.shard and a.message_id = h.message_id and a.no = h.no and a.attempt = h.attempt
    and a.message_id between $21 and $22
),
told as (
  insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
  select shard, message_id, no, event_seq, attempt, event, reason, $20 from head where event is not null
),
-- Endpoints of the partners in this batch. Most have none: then, the two that follow look at no row.
asked as materialized (
  select e.shard, e.partner_id, e.endpoint_id, e.recipient, e.events
  from (select distinct shard, partner_id from head where event is not null and lane not between 66 and 71) p
  join endpoints e on e.shard = p.shard and e.partner_id = p.partner_id
  where e.status in ('ACTIVE', 'PAUSED')
),
-- What they want to hear of it.
heard as materialized (
  select h.*, e.recipient, row_number() over (partition by h.notice_id order by e.endpoint_id)::smallint as nth
  from head h
  join asked e on e.shard = h.shard and e.partner_id = h.partner_id
  where exists (select from asked) and h.event is not null and h.lane not between 66 and 71
    and (e.events is null or h.event = any(e.events))
),
noticed as (
  insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at, about)
  select shard, notice_id, partner_id, event, ('{URGENT,NORMAL,BULK}'::text[])[lane % 6 / 2 + 1],
    jsonb_build_object('contents', jsonb_build_array(jsonb_build_object('body', '', 'event', jsonb_strip_nulls(
      jsonb_build_object('event', event, 'no', no, 'seq', event_seq, 'attempt', attempt, 'lane', lane, 'status', status,
        'provider', provider, 'code', code, 'reason', reason, 'occurred_at', $20::timestamptz))))), $20, message_id
  from heard
  where nth = 1
),
hooked as (
  insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, recipient, about,
    told_at)
  select shard, notice_id, nth, 66 + lane % 6, $28, 0, 'PENDING', partner_id, $20, recipient, message_id,
    clock_timestamp()
  from heard
),
-- Perhaps the last of its message: looked at once this is committed.
finished as (
  insert into endings (shard, message_id, partner_id)
  select distinct h.shard, h.message_id, h.partner_id
  from head h
  join asked e on e.shard = h.shard and e.partner_id = h.partner_id
  where exists (select from asked) and h.event is not null and h.lane not between 66 and 71
    and (e.events is null or 'message.completed' = any(e.events))
),
-- One row for each partner and lane of the batch: appended, so that nobody waits for it.
counted as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  select partner_id, $20, lane, sum(total), sum(success), sum(failed)
  from head
  where (total, success, failed) <> (0, 0, 0)
  group by partner_id, lane
)
select shard as "shard!", message_id as "message_id!", no as "no!", cancel_requested as "cancel_requested!",
  notice_id in (select notice_id from heard) as "heard!"
from head
