-- The record of a send in the delivery's own row. Most deliveries are accepted by their provider and nothing else
-- happens to them: a row of attempts and one of events for each cost 42 % of the CPU of settling and 388 bytes of WAL.
-- Such a delivery keeps that attempt and that event in its own row, until something else happens to it: then they are
-- moved to the tables. Readers use the views attempt_history and event_history. An older program does not see these
-- records, and is refused by the constraint if it changes such a delivery. Replace all processes soon after this
-- migration; what was refused is tried again and is lost nowhere.

alter table deliveries
  -- Of the attempt that is recorded here: who made it, when it was claimed and called, and the provider's own id of
  -- it. Its number is `attempt`, its end and the time of its event `settled_at`, the number of its event `event_seq`,
  -- its provider `provider`. Null: nothing is recorded here.
  add column sent_worker bigint,
  add column sent_claimed_at timestamptz,
  add column sent_called_at timestamptz,
  add column sent_ref text;

-- Not validated: the columns are new, so no row can break it, and reading millions of rows would hold a lock.
alter table deliveries add constraint ck_delivery_send_record check (
  sent_called_at is null
  or (status = 'SENT' and sent_worker is not null and sent_claimed_at is not null and settled_at is not null)) not valid;

-- Events are read by time. A partial index: rows are in it only once they hold a record, so other writes pay nothing.
create index idx_delivery_sent_at on deliveries using brin (settled_at) with (autosummarize = on)
  where sent_called_at is not null;

-- Every attempt, wherever it is recorded.
create view attempt_history as
select shard, message_id, no, attempt, outcome, late, worker, claimed_at, called_at, ended_at, next_at, provider,
  reason, code, detail, provider_ref, receipt, receipt_reason, receipt_code, receipt_at
from attempts
union all
select shard, message_id, no, attempt, 'ACCEPTED'::attempt_outcome, false, sent_worker, sent_claimed_at, sent_called_at,
  settled_at, null::timestamptz, provider, null::text, null::text, null::text, sent_ref, null::receipt_outcome,
  null::text, null::text, null::timestamptz
from deliveries
where sent_called_at is not null;

-- Every event, wherever it is recorded.
create view event_history as
select shard, message_id, no, seq, attempt, event, reason, occurred_at
from events
union all
select shard, message_id, no, event_seq, attempt, 'delivery.sent'::text, null::text, settled_at
from deliveries
where sent_called_at is not null;
