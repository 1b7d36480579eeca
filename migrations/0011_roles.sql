-- Roles. The owner of the schema migrates. The hub works as the role notihub_app, which owns nothing and cannot rewrite the
-- audit log. Services enqueue as logins that are tied to partners. Roles belong to the whole server and are not part of a
-- dump, so `notihub migrate` makes them and repairs their grants on each run; nothing here names them.

-- What processes of the hub do one at a time. Rows, because any login of the database can hold an advisory lock, whose
-- number is public; these only the hub's role can lock.
create table hub_locks (
  name text not null,
  -- 0: of the whole hub.
  partner_id bigint not null,
  constraint pk_hub_locks primary key (name, partner_id)
);

-- Which database role may enqueue for which partner. By name: a dump that is restored elsewhere keeps its meaning.
create table intake_grants (
  role_name text not null,
  partner_id bigint not null,
  -- Given by this migration because the role could enqueue before there were grants; an admin has not confirmed it.
  carried_over boolean not null default false,
  granted_at timestamptz not null,
  constraint pk_intake_grants primary key (role_name, partner_id)
);
create index idx_intake_grant_partner_id on intake_grants (partner_id);

-- Logins that could enqueue for every partner still can for those that exist now, so that the upgrade stops no service.
-- `notihub migrate` and `notihub doctor` list them until each grant is confirmed or revoked.
insert into intake_grants (role_name, partner_id, carried_over, granted_at)
select r.rolname, p.partner_id, true, transaction_timestamp()
from pg_roles r
join pg_roles intake on intake.rolname = 'notihub_enqueue' and pg_has_role(r.oid, intake.oid, 'member')
cross join partners p
where r.rolcanlogin and not r.rolsuper and r.rolname <> current_user
  and has_database_privilege(r.oid, current_database(), 'connect');

-- As before, and only for partners that the caller's login, or a role it is a member of, was granted. An unknown partner
-- and one that is not granted are refused with the same words, so that a login does not learn other partners' names. A
-- superuser needs no grant. Holds no lock that another transaction waits for: it reads, and adds one row of its own.
create or replace function notihub.enqueue(partner text, message jsonb) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  alphabet constant text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
  most_bytes constant integer := 1048576;
  body constant text := message::text;
  found_id bigint;
  is_active boolean;
  request bigint;
begin
  if body is null then
    raise exception using errcode = 'NE001', message = 'the message is null', detail = 'E001 body_empty',
      hint = 'Give one JSON object, as POST /v1/messages takes it.';
  end if;
  if octet_length(body) > most_bytes then
    raise exception using errcode = 'NE001',
      message = format('the message is %s bytes as text; the limit is %s bytes', octet_length(body), most_bytes),
      detail = 'E001 body_too_large', hint = 'Send it in several messages.';
  end if;
  select p.partner_id, p.status = 'ACTIVE' into found_id, is_active from public.partners p where p.name = partner;
  if not found and partner ~ '^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{12}$' then
    -- A public id: base32, five bits a character, the first character first.
    select p.partner_id, p.status = 'ACTIVE' into found_id, is_active from public.partners p
    where p.partner_id = (
      select bit_or((strpos(alphabet, upper(substr(partner, i, 1))) - 1)::bigint << (65 - 5 * i))
      from generate_series(1, 13) i);
  end if;
  if found_id is null
    or not exists (select from pg_roles r where r.rolname = session_user and r.rolsuper)
    and not exists (
      select from public.intake_grants g
      join pg_roles r on r.rolname = g.role_name
      where g.partner_id = found_id and pg_has_role(session_user, r.oid, 'member'))
  then
    raise exception using errcode = 'NE007',
      message = format('there is no partner ''%s'' that the login ''%s'' may enqueue for', left(partner, 64), session_user),
      detail = 'E007 partner_unknown',
      hint = format('Give a partner''s name or its id. An admin of notihub ties a login to a partner with: '
        'notihub partner grant %L --role %L', left(partner, 64), session_user::text);
  end if;
  if not is_active then
    raise exception using errcode = 'NE008',
      message = format('the partner ''%s'' is inactive', left(partner, 64)), detail = 'E008 partner_inactive',
      hint = 'An admin of notihub has to activate it first.';
  end if;
  insert into notihub.requests (partner_id, body, enqueued_at) values (found_id, body, clock_timestamp())
  returning request_id into request;
  return request;
end $$;

-- The hub's role creates no tables; it asks for the partitions of a week, and the owner's right makes exactly those.
-- `first_id` and `end_id` are the ids of the week's beginning and end. Returns the names of those that were missing.
create function make_week(week date, first_id bigint, end_id bigint) returns text[]
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
  foreach parent in array array['messages', 'deliveries', 'attempts', 'events'] loop
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

-- Drops the partitions of a week, unless something in them is still open. Returns the names of those dropped.
create function drop_week(week date) returns text[]
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
  foreach parent in array array['messages', 'deliveries', 'attempts', 'events'] loop
    name := parent || '_' || to_char(week, 'YYYYMMDD');
    continue when to_regclass('public.' || name) is null;
    execute format('drop table public.%I', name);
    dropped := dropped || name;
  end loop;
  return dropped;
end $$;

revoke all on function make_week(date, bigint, bigint) from public;
revoke all on function drop_week(date) from public;
