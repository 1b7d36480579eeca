-- Webhooks: where partners want to hear of their messages, and what is on its way there. What is told is a message of its
-- own with a delivery for each endpoint, in the same tables and the same queue as everything else.
-- Its indexes on messages, deliveries and events are built while nobody writes: stop workers and API before this on an
-- installation with many millions of rows.

create type endpoint_status as enum ('ACTIVE', 'PAUSED', 'DISABLED', 'DELETED');

create table endpoints (
  shard smallint not null,
  partner_id bigint not null,
  endpoint_id bigint not null,
  -- Its public id, by which deliveries name it as their recipient.
  recipient text not null,
  url text not null,
  description text,
  -- Null: all, those to come included.
  events text[],
  status endpoint_status not null default 'ACTIVE',
  -- Why it was disabled: 'gone', 'failing', 'paused'.
  disabled_reason text,
  -- Events of one message one after the other.
  ordered boolean not null default false,
  -- Events carry what the message said, if the partner may have that.
  include_content boolean not null default false,
  -- Who is told by e-mail when it is disabled.
  contact_email text,
  -- Sealed: custom headers (a JSON object), the secret, and during a rotation the one before.
  headers bytea,
  secret bytea not null,
  former_secret bytea,
  former_until timestamptz,
  -- Since when nothing but failures; null while it works.
  failing_since timestamptz,
  last_success_at timestamptz,
  last_failure_at timestamptz,
  -- When it last became active again: what was parked meanwhile is let go.
  resumed_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint pk_endpoints primary key (shard, partner_id, endpoint_id)
);
create index idx_endpoint_id on endpoints (endpoint_id);
-- Who is told of anything: asked with every accept and every settle.
create index idx_endpoint_hears on endpoints (shard, partner_id) where status in ('ACTIVE', 'PAUSED');

-- A message that tells of another: which. Its own id when it tells of none. Null: a message a partner posted.
alter table messages add column about bigint;
create index idx_message_about on messages (shard, about) where about is not null;

-- Lanes from 66 on are those of the channel WEBHOOK: what an endpoint got.
create index idx_delivery_endpoint on deliveries (shard, recipient, message_id) where lane >= 66;

-- Messages one of whose deliveries ended, for partners that want to hear when all have. Appended, so that nobody waits for
-- it; looked at and deleted soon after.
create table endings (
  shard smallint not null,
  message_id bigint not null,
  partner_id bigint not null
) with (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_vacuum_insert_threshold = -1, vacuum_truncate = false
);

-- Events by time, for replays; summed up as they come, or what is new would be read whole.
create index idx_event_occurred_at on events using brin (occurred_at) with (autosummarize = on);

-- Whether its endpoints may be given what its messages say.
alter table partners add column may_receive_content boolean not null default false;

-- Redriving many dead letters, or replaying many events: done in small steps at a bounded rate, by whichever worker comes
-- next, and resumed where the last one stopped.
create type redrive_kind as enum ('REDRIVE', 'RECOVER', 'REPLAY');
create type redrive_status as enum ('RUNNING', 'DONE', 'CANCELED');

create table redrives (
  redrive_id bigint not null,
  kind redrive_kind not null,
  -- Null: all partners'.
  partner_id bigint,
  -- Of one endpoint alone.
  endpoint_id bigint,
  filter jsonb not null,
  rate_per_second integer not null,
  status redrive_status not null default 'RUNNING',
  -- How many there were when it began, how many were done.
  expected bigint,
  done bigint not null default 0,
  -- Where it stands; its form is its flow's own.
  position jsonb,
  requested_by text not null,
  created_at timestamptz not null,
  stepped_at timestamptz not null,
  finished_at timestamptz,
  constraint pk_redrives primary key (redrive_id),
  constraint ck_redrive_rate check (rate_per_second > 0)
);
create index idx_redrive_running on redrives (stepped_at) where status = 'RUNNING';
create index idx_redrive_partner_id on redrives (partner_id, redrive_id);
