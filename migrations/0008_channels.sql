-- Channels over real providers: receipts, fallback, what processes share about a provider, alerts.
-- Its indexes on deliveries are built while nobody writes: stop workers and API before this on an installation with many
-- millions of rows.

alter table deliveries
  -- Where a fallback was made: the number of the delivery that was posted, in that one and in all that took its place.
  add column chain smallint,
  -- Another channel stands by, and was not asked yet: its message says which.
  add column has_fallback boolean not null default false,
  -- Until when a receipt is waited for; null: for none (any more).
  add column receipt_due timestamptz;
create index idx_delivery_receipt_due on deliveries (shard, receipt_due) where receipt_due is not null;
-- Those that need not wait for a channel that is down.
create index idx_delivery_fallback on deliveries (shard, lane, ready_at) where status = 'PENDING' and has_fallback;

-- What receipts say became of an attempt, from the least to the most that can be known.
create type receipt_outcome as enum ('ACCEPTED', 'EXPIRED', 'FAILED', 'DELIVERED');
alter table attempts
  add column receipt receipt_outcome,
  -- Of FAILED: the class of errors.
  add column receipt_reason text,
  add column receipt_code text,
  add column receipt_at timestamptz;

-- What providers told, each piece once, before they are answered; applied to deliveries soon after.
create table receipts (
  provider text not null,
  event_key text not null,
  received_at timestamptz not null,
  -- The attempt it is about; null: it names none of ours.
  shard smallint,
  message_id bigint,
  no smallint,
  attempt smallint,
  provider_ref text,
  -- Null: it could not be read; the detail says why.
  outcome receipt_outcome,
  class text,
  code text,
  detail text,
  occurred_at timestamptz,
  -- When it is looked at (again).
  try_at timestamptz not null,
  applied_at timestamptz,
  -- What came of it: 'applied', 'known' (nothing new), 'recorded' (on its attempt alone), 'unmatched', 'unreadable'.
  effect text,
  constraint pk_receipts primary key (provider, event_key)
);
create index idx_receipt_waiting on receipts (try_at) where applied_at is null;
create index idx_receipt_message on receipts (shard, message_id) where message_id is not null;
-- Rows go one by one, all over the table: only a tree finds the oldest without reading the rest.
create index idx_receipt_received_at on receipts (received_at);

-- Which attempt it was that a provider has an id of its own for: of those that do not repeat our reference.
create table provider_refs (
  provider text not null,
  provider_ref text not null,
  shard smallint not null,
  message_id bigint not null,
  no smallint not null,
  attempt smallint not null,
  constraint pk_provider_refs primary key (provider, provider_ref)
);
create index idx_provider_ref_message on provider_refs (message_id);

-- Where the reading of a provider's list of results stands, and who reads.
create table provider_cursors (
  provider text not null,
  cursor text,
  polled_at timestamptz,
  lease_until timestamptz,
  constraint pk_provider_cursors primary key (provider)
);

-- What all processes know of a provider: whether somebody paused it, and its circuit breaker.
create type breaker_status as enum ('CLOSED', 'OPEN', 'HALF_OPEN');
create table provider_states (
  provider text not null,
  paused_at timestamptz,
  paused_by text,
  breaker breaker_status not null default 'CLOSED',
  -- Why it opened: a class of errors, or 'unknown'.
  reason text,
  opened_at timestamptz,
  -- When it may be probed.
  open_until timestamptz,
  -- How often it opened since it was last closed for good.
  openings integer not null default 0,
  -- Probes under way or done since it was half-open, and until when the last of them is waited for.
  probes smallint not null default 0,
  probe_until timestamptz,
  changed_at timestamptz not null,
  constraint pk_provider_states primary key (provider)
);

-- The state of a provider's rate limit, in the form of its strategy; all processes take from it in turn.
create table provider_limits (
  provider text not null,
  state jsonb not null,
  changed_at timestamptz not null,
  constraint pk_provider_limits primary key (provider)
);

-- Spans in which a provider was not asked, and why, so that a message's story can tell what it waited for. Never one for each
-- message.
create table provider_holds (
  provider text not null,
  began_at timestamptz not null,
  ended_at timestamptz not null,
  -- 'limited', 'breaker', 'paused'.
  reason text not null,
  detail text,
  constraint pk_provider_holds primary key (provider, reason, began_at)
);
create index idx_provider_hold_ended_at on provider_holds (ended_at);

-- What operators were told of, once for each cause, and told again when it is over.
create table alerts (
  cause text not null,
  opened_at timestamptz not null,
  seen_at timestamptz not null,
  cleared_at timestamptz,
  times bigint not null default 1,
  detail text not null,
  constraint pk_alerts primary key (cause, opened_at)
);
create unique index uk_alert_open on alerts (cause) where cleared_at is null;
