-- SQL intake: a service that shares the database enqueues a message inside its own transaction, with
-- `select notihub.enqueue(partner, message)` and a role that can do nothing else. A worker turns requests into messages.
-- All of it is in a schema of its own, so that one grant opens this door and no other. A login role of that schema's name
-- has the schema first in its search path: so the program asks for public alone, and no name here is that of a table there.

create schema notihub;

-- What waits to become a message. A request is deleted in the transaction that writes its message.
create table notihub.requests (
  request_id bigint generated always as identity,
  partner_id bigint not null,
  -- The message as JSON: text, because it is read as a request's body is.
  body text not null,
  enqueued_at timestamptz not null,
  constraint pk_requests primary key (request_id)
);
create index idx_request_partner_id on notihub.requests (partner_id, request_id);
-- A queue that is mostly empty: vacuum by what came and went, not by what is there.
alter table notihub.requests set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- What could not become a message, and why. Kept until retention is over.
create table notihub.refusals (
  request_id bigint not null,
  partner_id bigint not null,
  client_msg_id text,
  body text not null,
  enqueued_at timestamptz not null,
  refused_at timestamptz not null,
  code text not null,
  reason text not null,
  detail text not null,
  errors jsonb not null,
  constraint pk_refusals primary key (request_id)
);
create index idx_refusal_partner_id on notihub.refusals (partner_id, request_id);

-- Refuses at once what no worker could ever make right, so that the caller's transaction knows: SQLSTATE NE001, NE007 and
-- NE008 are the codes E001, E007 and E008. Everything else is judged by the worker, by the same law as over HTTP.
-- The request counts as posted at the moment of the call, so here the database's clock is the right one.
create function notihub.enqueue(partner text, message jsonb) returns bigint
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
  if found_id is null then
    raise exception using errcode = 'NE007',
      message = format('there is no partner ''%s''', left(partner, 64)), detail = 'E007 partner_unknown',
      hint = 'Give a partner''s name or its id.';
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

revoke all on schema notihub from public;
revoke all on all tables in schema notihub from public;
revoke all on function notihub.enqueue(text, jsonb) from public;

-- Roles belong to the whole server: another database may have made this one already, at this very moment too.
do $$
begin
  if not exists (select from pg_roles where rolname = 'notihub_enqueue') then
    begin
      create role notihub_enqueue nologin;
    exception
      when duplicate_object or unique_violation then null;
      when insufficient_privilege then
        raise warning 'the role notihub_enqueue could not be made; have an administrator make it, grant it usage on schema '
          'notihub and execute on function notihub.enqueue(text, jsonb), then grant it to your services';
    end;
  end if;
  if exists (select from pg_roles where rolname = 'notihub_enqueue') then
    grant usage on schema notihub to notihub_enqueue;
    grant execute on function notihub.enqueue(text, jsonb) to notihub_enqueue;
  end if;
end $$;
