-- Writes the outcomes of many steps at once, each fenced by the status and attempt it started from. A step that lost
-- its fence writes nothing. For the others the same statement writes the attempt, the event, the statistics and the
-- webhooks; they are returned with cancel_requested as it is now.
-- The status that a step started from is bound, not a literal: a literal lets the planner choose the small partial
-- index on leases and read its dead entries.
-- A reader who sees an event also sees its webhooks, because both are written here. Events of webhooks themselves
-- (lanes 66 to 71) are not reported to endpoints.
-- One each per step: $1 shard[], $2 message_id[], $3 no[], $4 attempt[], $5 status it started from[], $6 new status[],
-- $7 ready_at[], $8 possibly_sent[], $9 refund[], $10 event[], $11 reason[], $12 provider[], $13 outcome[] (null: no
-- attempt ends), $14 worker[], $15 claimed_at[], $16 called_at[], $17 code[], $18 detail[], $19 provider_ref[], $20
-- whether the attempt's row exists already[], change of the statistics: $21 total[], $22 success[], $23 failed[]; $24
-- message_id of the webhook message, used if an endpoint subscribes to the event[], $25 receipt_due[].
-- For all: $26 now, $27 and $28 the smallest and largest message_id (partition pruning), $29 max_attempts of a webhook.
with head as (
  update deliveries d
  set status = s.status, ready_at = coalesce(s.ready_at, d.ready_at), lease_until = null, worker = null,
    possibly_sent = d.possibly_sent or s.possibly_sent, max_attempts = d.max_attempts + s.refund::int::smallint,
    event_seq = d.event_seq + (s.event is not null)::int::smallint,
    -- Keep reason 'redriven' until the next final status; receipts from before it are then ignored.
    reason = case when s.event is null and d.reason = 'redriven' then d.reason else s.reason end,
    provider = coalesce(s.provider, d.provider), settled_at = case when s.event is not null then $26::timestamptz end,
    receipt_due = s.receipt_due,
    has_fallback = d.has_fallback and s.status not in ('CANCELED', 'EXPIRED')
      and coalesce(s.reason, '') not in ('canceled', 'expired', 'expired_before_retry')
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[]::delivery_status[],
    $6::text[]::delivery_status[], $7::timestamptz[], $8::bool[], $9::bool[], $10::text[], $11::text[], $12::text[],
    $13::text[]::attempt_outcome[], $14::bigint[], $15::timestamptz[], $16::timestamptz[], $17::text[], $18::text[],
    $19::text[], $20::bool[], $21::smallint[], $22::smallint[], $23::smallint[], $24::bigint[],
    $25::timestamptz[])
    as s(shard, message_id, no, attempt, was, status, ready_at, possibly_sent, refund, event, reason, provider, outcome,
      worker, claimed_at, called_at, code, detail, provider_ref, begun, total, success, failed,
      webhook_message_id, receipt_due)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and d.message_id between $27 and $28 and d.status = s.was and d.attempt = s.attempt
  returning d.shard, d.message_id, d.no, d.attempt, d.event_seq, d.cancel_requested, s.event, s.reason, s.ready_at,
    s.provider, s.outcome, s.worker, s.claimed_at, s.called_at, s.code, s.detail, s.provider_ref, s.begun,
    d.partner_id, d.lane, s.total, s.success, s.failed, s.status, s.webhook_message_id
),
new_attempts as (
  insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at, next_at,
    provider, reason, code, detail, provider_ref)
  select shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, $26, ready_at, provider, reason, code,
    detail, provider_ref
  from head
  where outcome is not null and not begun
),
-- Attempts whose row was written before the call.
ended_attempts as (
  update attempts a
  set outcome = h.outcome, ended_at = $26, next_at = h.ready_at, reason = h.reason, code = h.code, detail = h.detail,
    provider_ref = h.provider_ref,
    called_at = case when h.outcome <> 'NOT_CALLED' then coalesce(a.called_at, h.called_at) end,
    provider = coalesce(h.provider, a.provider)
  from head h
  where h.outcome is not null and h.begun
    and a.shard = h.shard and a.message_id = h.message_id and a.no = h.no and a.attempt = h.attempt
    and a.message_id between $27 and $28
),
new_events as (
  insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
  select shard, message_id, no, event_seq, attempt, event, reason, $26 from head where event is not null
),
-- Endpoints of the partners in this batch. Most partners have none: then the steps below that use them read no row.
partner_endpoints as materialized (
  select e.shard, e.partner_id, e.endpoint_id, e.recipient, e.events
  from (select distinct shard, partner_id from head where event is not null and lane not between 66 and 71) p
  join endpoints e on e.shard = p.shard and e.partner_id = p.partner_id
  where e.status in ('ACTIVE', 'PAUSED')
),
-- Events that an endpoint subscribes to, one row per endpoint.
subscriptions as materialized (
  select h.*, e.recipient, row_number() over (partition by h.webhook_message_id order by e.endpoint_id)::smallint as nth
  from head h
  join partner_endpoints e on e.shard = h.shard and e.partner_id = h.partner_id
  where exists (select from partner_endpoints) and h.event is not null and h.lane not between 66 and 71
    and (e.events is null or h.event = any(e.events))
),
webhook_messages as (
  insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at, about)
  select shard, webhook_message_id, partner_id, event, ('{URGENT,NORMAL,BULK}'::text[])[lane % 6 / 2 + 1],
    jsonb_build_object('contents', jsonb_build_array(jsonb_build_object('body', '', 'event', jsonb_strip_nulls(
      jsonb_build_object('event', event, 'no', no, 'seq', event_seq, 'attempt', attempt, 'lane', lane, 'status', status,
        'provider', provider, 'code', code, 'reason', reason, 'occurred_at', $26::timestamptz))))), $26, message_id
  from subscriptions
  where nth = 1
),
webhook_deliveries as (
  insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, recipient,
    about, told_at)
  select shard, webhook_message_id, nth, 66 + lane % 6, $29, 0, 'PENDING', partner_id, $26, recipient, message_id,
    clock_timestamp()
  from subscriptions
),
-- The message may have ended with this delivery: checked after the commit.
ending_marks as (
  insert into endings (shard, message_id, partner_id)
  select distinct h.shard, h.message_id, h.partner_id
  from head h
  join partner_endpoints e on e.shard = h.shard and e.partner_id = h.partner_id
  where exists (select from partner_endpoints) and h.event is not null and h.lane not between 66 and 71
    and (e.events is null or 'message.completed' = any(e.events))
),
-- One new row per partner and lane of the batch: appended, so that no transaction waits for a shared row.
stat_changes as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  select partner_id, $26, lane, sum(total), sum(success), sum(failed)
  from head
  where (total, success, failed) <> (0, 0, 0)
  group by partner_id, lane
)
select shard as "shard!", message_id as "message_id!", no as "no!", cancel_requested as "cancel_requested!",
  webhook_message_id in (select webhook_message_id from subscriptions) as "has_subscribers!"
from head
