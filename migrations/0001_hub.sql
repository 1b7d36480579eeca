-- The queue and its history: messages, deliveries, attempts, events, idempotency, partners, workers.
-- Forward only. Every constraint has a name. No foreign keys, triggers or sequences on hot tables: a message and all
-- under it carry the partner's shard, live in the same week's partition and leave with it.

create type delivery_status as enum (
  'SCHEDULED', 'PENDING', 'PROCESSING', 'SENT', 'DELIVERED', 'FAILED', 'EXPIRED', 'CANCELED', 'UNDETERMINED'
);

create type attempt_outcome as enum ('IN_FLIGHT', 'ACCEPTED', 'REJECTED', 'UNKNOWN', 'NOT_CALLED');

create table partners (
  partner_id bigint not null,
  name text not null,
  shard smallint not null,
  created_at timestamptz not null,
  constraint pk_partners primary key (partner_id),
  constraint uk_partner_name unique (name),
  constraint ck_partner_shard check (shard >= 0)
);

-- One message: what a partner posted, immutable. No status: that is computed from the deliveries when asked.
create table messages (
  shard smallint not null,
  message_id bigint not null,
  partner_id bigint not null,
  client_msg_id text,
  kind text not null,
  priority text not null,
  detail jsonb not null,
  created_at timestamptz not null,
  scheduled_at timestamptz,
  expires_at timestamptz,
  constraint pk_messages primary key (shard, message_id)
) partition by range (message_id);

create index idx_message_partner_id on messages (shard, partner_id, message_id);
-- Rows arrive in the order of their creation, so a block range index finds a time window at almost no cost to writers.
create index idx_message_created_at on messages using brin (created_at);

-- One message to one recipient over one channel: the unit of work, and the only thing with a status.
create table deliveries (
  shard smallint not null,
  message_id bigint not null,
  no smallint not null,
  lane smallint not null,
  attempt smallint not null default 0,
  max_attempts smallint not null,
  content smallint not null,
  event_seq smallint not null default 0,
  status delivery_status not null,
  possibly_sent boolean not null default false,
  cancel_requested boolean not null default false,
  -- Its claimer records the beginning of calls: only then does a missing record prove that none began.
  begins_recorded boolean not null default false,
  partner_id bigint not null,
  ready_at timestamptz not null,
  lease_until timestamptz,
  worker bigint,
  expires_at timestamptz,
  settled_at timestamptz,
  recipient text not null,
  provider text,
  reason text,
  constraint pk_deliveries primary key (shard, message_id, no),
  constraint ck_delivery_lease check ((status = 'PROCESSING') = (lease_until is not null and worker is not null)),
  constraint ck_delivery_attempts check (attempt <= max_attempts)
) partition by range (message_id);

-- Claim, reap, promote: each walks only rows in its own state, in order. A row that may not go yet is in none of them
-- but the last.
create index idx_delivery_claim on deliveries (shard, lane, ready_at) where status = 'PENDING';
create index idx_delivery_reap on deliveries (shard, lease_until) where status = 'PROCESSING';
create index idx_delivery_promote on deliveries (shard, ready_at) where status = 'SCHEDULED';
-- Seed 000's index on status, kept to the endings somebody looks for, so that the usual ending writes nothing here.
create index idx_message_status on deliveries (shard, partner_id, status, message_id)
  where status in ('FAILED', 'EXPIRED', 'UNDETERMINED');

-- One call to a provider (or the decision not to make it). Its number is the fencing token.
create table attempts (
  shard smallint not null,
  message_id bigint not null,
  no smallint not null,
  attempt smallint not null,
  outcome attempt_outcome not null,
  late boolean not null default false,
  worker bigint not null,
  claimed_at timestamptz not null,
  called_at timestamptz,
  ended_at timestamptz,
  next_at timestamptz,
  provider text,
  reason text,
  code text,
  detail text,
  provider_ref text,
  constraint pk_attempts primary key (shard, message_id, no, attempt)
) partition by range (message_id);

-- What is told about a delivery: one row per promised transition, numbered without gaps per delivery.
create table events (
  shard smallint not null,
  message_id bigint not null,
  no smallint not null,
  seq smallint not null,
  attempt smallint not null,
  event text not null,
  reason text,
  occurred_at timestamptz not null,
  constraint pk_events primary key (shard, message_id, no, seq)
) partition by range (message_id);

-- One key, one message: cannot be a constraint of a table partitioned by message id.
create table idempotency (
  shard smallint not null,
  partner_id bigint not null,
  client_msg_id text not null,
  message_id bigint not null,
  fingerprint bytea not null,
  constraint uk_message_partner_client_msg primary key (shard, partner_id, client_msg_id)
);
create index idx_idempotency_message_id on idempotency using brin (message_id);

-- Processes that claim, so that operators can see who holds what. One row per process, touched by that process alone.
create table workers (
  worker_id bigint not null,
  host text not null,
  pid integer not null,
  version text not null,
  started_at timestamptz not null,
  seen_at timestamptz not null,
  constraint pk_workers primary key (worker_id)
);

-- Keys this installation made for itself, shared by all its processes (list cursors are signed with one).
create table hub_keys (
  name text not null,
  key bytea not null,
  constraint pk_hub_keys primary key (name)
);

-- Deals out the node part of ids: processes that live at the same time get different ones.
create sequence node_seq as integer minvalue 0 maxvalue 1023 start 0 cycle;

-- Nets: a row in here means that the partitions were not made ahead. `doctor` and `/readyz` watch them.
create table messages_default partition of messages default;
create table deliveries_default partition of deliveries default;
create table attempts_default partition of attempts default;
create table events_default partition of events default;

-- Seed 000's `messages`, with a status: a view, because status is computed (checklist C7).
create view messages_with_status as
select m.message_id, m.partner_id, m.client_msg_id, m.kind as message_type, m.detail, m.created_at,
  d.recipient, d.status
from messages m
join deliveries d on d.shard = m.shard and d.message_id = m.message_id;
