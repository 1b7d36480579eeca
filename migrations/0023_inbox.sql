-- Inboxes of users, their streams, and live connections. Expands only: the version before neither reads nor writes these
-- tables, and its partitions are made and dropped as before.

-- The head of a user's stream: the number of the last change, and up to which arrival the user has seen its inbox. Each
-- change of the inbox locks this row, so that changes are numbered without a gap in the order of their commits. What is
-- unread or unseen is counted when it is asked for, by partial indexes: a stored count could drift. Small rows, updated in
-- place.
create table user_heads (
  shard smallint not null,
  user_id bigint not null,
  seq bigint not null default 0,
  seen_seq bigint not null default 0,
  constraint pk_user_heads primary key (shard, user_id),
  constraint ck_user_head_seen check (seen_seq between 0 and seq)
) with (fillfactor = 50);

-- The items of inboxes: one for each delivery over INAPP that arrived. An item's text is its message's. Weekly by
-- message_id, dropped with the message.
create table inbox_items (
  shard smallint not null,
  user_id bigint not null,
  message_id bigint not null,
  no smallint not null,
  -- Which content of the message.
  content smallint not null,
  -- The number of its (last) arrival in the user's stream.
  seq bigint not null,
  arrived_at timestamptz not null,
  read_at timestamptz,
  archived_at timestamptz,
  -- Hidden until then; it arrives again at that time.
  snoozed_until timestamptz,
  expires_at timestamptz,
  constraint pk_inbox_items primary key (shard, user_id, message_id, no)
) partition by range (message_id);
create table inbox_items_default partition of inbox_items default;
create index idx_inbox_item_seq on inbox_items (shard, user_id, seq);
create index idx_inbox_item_unread on inbox_items (shard, user_id) where read_at is null and archived_at is null;
create index idx_inbox_item_snoozed on inbox_items (shard, snoozed_until) where snoozed_until is not null;

-- Changes in a stream besides the rows that are events themselves (items of users). The stream's numbers are here or on such
-- a row, each once. Weekly by event_id, kept two weeks: a client that was away longer begins anew.
create table stream_events (
  shard smallint not null,
  stream_id bigint not null,
  seq bigint not null,
  event_id bigint not null,
  event text not null,
  -- The item or chat message that the event is about.
  about bigint,
  about_no smallint,
  actor bigint,
  detail jsonb,
  constraint pk_stream_events primary key (shard, stream_id, seq, event_id)
) partition by range (event_id);
create table stream_events_default partition of stream_events default;

-- Live connections and tickets end with a crash of the server, and so may their rows.
create unlogged table connections (
  connection_id bigint not null,
  shard smallint not null,
  user_id bigint not null,
  process_id bigint not null,
  -- 1 SSE.
  kind smallint not null,
  opened_at timestamptz not null,
  constraint pk_connections primary key (connection_id)
);
create index idx_connection_user on connections (shard, user_id);
create index idx_connection_process on connections (process_id);
-- Processes with connections. The connections of a process that is not seen for a while are gone.
create unlogged table live_processes (
  process_id bigint not null,
  seen_at timestamptz not null,
  constraint pk_live_processes primary key (process_id)
);
-- A ticket opens one stream where no header can be set. Its hash is stored.
create unlogged table tickets (
  ticket_hash bytea not null,
  shard smallint not null,
  user_id bigint not null,
  partner_id bigint not null,
  -- The sign-in, if there was one.
  sid bigint,
  -- When the token ends with which the ticket was asked for.
  token_until timestamptz,
  valid_until timestamptz not null,
  constraint pk_tickets primary key (ticket_hash)
);
create index idx_ticket_valid_until on tickets (valid_until);

create or replace function make_week(week date, first_id bigint, end_id bigint) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  parent text;
  name text;
  storage text;
  made text[] := '{}';
begin
  if week is null or extract(isodow from week) <> 1 then
    raise exception 'a week begins on a Monday, not on %', week;
  end if;
  -- Waits for another process that makes them; they are then found made.
  insert into public.hub_locks (name, partner_id) values ('partitions', 0)
  on conflict on constraint pk_hub_locks do update set name = excluded.name;
  foreach parent in array array['messages', 'deliveries', 'attempts', 'events', 'inbox_items', 'stream_events'] loop
    name := parent || '_' || to_char(week, 'YYYYMMDD');
    continue when to_regclass('public.' || name) is not null;
    storage := 'autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.1';
    if parent = 'deliveries' then
      -- Claims do not walk dead rows (watermarks), so vacuum, which reads every index, need not run after each few.
      storage := storage || ', autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 50000';
    end if;
    execute format('create table public.%I partition of public.%I for values from (%s) to (%s) with (%s)',
      name, parent, first_id, end_id, storage);
    if exists (select from pg_roles where rolname = 'notihub_app') then
      execute format('grant select on public.%I to notihub_app', name);
    end if;
    made := made || name;
  end loop;
  return made;
end $$;

create or replace function drop_week(week date) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  parent text;
  name text;
  open boolean;
  dropped text[] := '{}';
begin
  name := 'deliveries_' || to_char(week, 'YYYYMMDD');
  if to_regclass('public.' || name) is not null then
    -- One question for each partial index.
    execute format('select exists (select from public.%1$I where status = ''PENDING'')
      or exists (select from public.%1$I where status = ''PROCESSING'')
      or exists (select from public.%1$I where status = ''SCHEDULED'')', name) into open;
    if open then
      raise exception 'deliveries in % are still open', name;
    end if;
  end if;
  foreach parent in array array['messages', 'deliveries', 'attempts', 'events', 'inbox_items', 'stream_events'] loop
    name := parent || '_' || to_char(week, 'YYYYMMDD');
    continue when to_regclass('public.' || name) is null;
    execute format('drop table public.%I', name);
    dropped := dropped || name;
  end loop;
  return dropped;
end $$;

-- Drops the weeks of stream_events that ended before this day. Returns their names. The last two weeks are always kept, by
-- the database's clock: a client that resumes within them gets every event.
create function drop_stream_weeks(before date) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text;
  dropped text[] := '{}';
begin
  if before is null or before > (clock_timestamp() at time zone 'UTC')::date - 14 then
    raise exception 'the events of the last two weeks are kept: % is too late', before;
  end if;
  for name in
    select c.relname::text
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass('public.stream_events') and c.relname ~ '^stream_events_\d{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') + 7 <= before
    order by 1
  loop
    execute format('drop table public.%I', name);
    dropped := dropped || name;
  end loop;
  return dropped;
end $$;
revoke all on function drop_stream_weeks(date) from public;
