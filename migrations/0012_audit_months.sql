-- The audit log by month, so that retention can drop what is older than it. Rows are only ever added, as before. What was
-- there stays, as one partition that ends with this month. Rows for which no month was made fall into a default partition;
-- the next month that is made takes its own out of there. So an entry is never refused for want of a partition.

-- The first id of a day, and the month of an id: as src/id.rs has it.
create function audit_first_id(day date) returns bigint language sql immutable parallel safe
  set search_path = pg_catalog, pg_temp
  return (extract(epoch from day)::bigint * 1000 - 1577836800000) << 22;
create function audit_month_of(audit_id bigint) returns date language sql immutable parallel safe
  set search_path = pg_catalog, pg_temp
  return date_trunc('month', timestamp '1970-01-01' + ((audit_id >> 22) + 1577836800000) * interval '1 millisecond')::date;

-- The months' partitions and their ids, first_id included and end_id not. Without the default.
create function audit_months() returns table (name text, first_id bigint, end_id bigint) language sql stable
  set search_path = pg_catalog, pg_temp
begin atomic
  select name, case when bound[1] = 'MINVALUE' then -9223372036854775808 else bound[1]::bigint end, bound[2]::bigint
  from (
    select c.relname::text as name,
      regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(MINVALUE|\d+)''?\) TO \(''?(\d+)''?\)') as bound
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass('public.audit')
  ) partitions
  where bound is not null;
end;

alter table audit rename to audit_before_months;
alter table audit_before_months rename constraint pk_audit to pk_audit_before_months;
alter index idx_audit_partner_id rename to idx_audit_before_months_partner_id;
alter index idx_audit_actor rename to idx_audit_before_months_actor;

create table audit (
  audit_id bigint not null,
  at timestamptz not null,
  -- A client id, or who ran a command on which host.
  actor text not null,
  role text not null,
  action text not null,
  object text,
  partner_id bigint,
  address text,
  request_id text,
  before jsonb,
  after jsonb,
  constraint pk_audit primary key (audit_id)
) partition by range (audit_id);
create index idx_audit_partner_id on audit (partner_id, audit_id);
create index idx_audit_actor on audit (actor, audit_id);
create index idx_audit_action on audit (action, audit_id);
-- A statement fires the triggers of the table that it names, so each partition has its own as well.
create trigger audit_append_only before update or delete or truncate on audit
  for each statement execute function audit_is_only_added_to();

-- The owner's own step of `make_audit_month`: a partition with its trigger and the hub's right to read it.
create function audit_partition(name text, bounds text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  execute format('create table public.%I partition of public.audit %s', name, bounds);
  execute format('create trigger audit_append_only before update or delete or truncate on public.%I '
    'for each statement execute function public.audit_is_only_added_to()', name);
  if exists (select from pg_roles where rolname = 'notihub_app') then
    execute format('grant select on public.%I to notihub_app', name);
  end if;
end $$;

-- Makes the partition of the month that begins on this day, unless its time has one. Returns the names of those made. The
-- bounds come from the month alone: the hub's role cannot have one made whose name says less than its rows' age.
create function make_audit_month(month date) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  name constant text := 'audit_' || to_char(month, 'YYYYMM');
  begins bigint;
  ends bigint;
  has_strays boolean;
begin
  if month is null or extract(day from month) <> 1 or month < date '2020-01-01' or month >= date '2089-01-01' then
    raise exception 'a month of the audit log begins on the first of a month from 2020 to 2088, not on %', month;
  end if;
  begins := public.audit_first_id(month);
  ends := public.audit_first_id((month + interval '1 month')::date);
  -- Waits for another process that makes it; it is then found made.
  insert into public.hub_locks (name, partner_id) values ('partitions', 0)
  on conflict on constraint pk_hub_locks do update set name = excluded.name;
  if exists (select from public.audit_months() m where m.first_id < ends and m.end_id > begins) then
    return '{}';
  end if;
  select exists (select from public.audit_default a where a.audit_id >= begins and a.audit_id < ends) into has_strays;
  if has_strays then
    -- Its rows cannot be deleted: all are added anew, each to its partition, and the table they were in goes.
    alter table public.audit detach partition public.audit_default;
    alter table public.audit_default rename to audit_strays;
    perform public.audit_partition('audit_default', 'default');
  end if;
  perform public.audit_partition(name, format('for values from (%s) to (%s)', begins, ends));
  if has_strays then
    insert into public.audit select * from public.audit_strays;
    drop table public.audit_strays;
  end if;
  return array[name];
end $$;

-- Drops the months that ended before this day. Returns their names. By the database's clock 90 days are always kept,
-- whatever the hub's role asks for; it names no table, and what has no month is not dropped.
create function drop_audit_months(before date) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text;
  dropped text[] := '{}';
begin
  if before is null or before > (clock_timestamp() at time zone 'UTC')::date - 90 then
    raise exception 'the audit log of the last 90 days is kept: % is too late', before;
  end if;
  for name in
    select m.name from public.audit_months() m where m.end_id <= public.audit_first_id(before) order by m.end_id
  loop
    execute format('drop table public.%I', name);
    dropped := dropped || name;
  end loop;
  return dropped;
end $$;

revoke all on function make_audit_month(date), drop_audit_months(date), audit_partition(text, text), audit_months(),
  audit_month_of(bigint), audit_first_id(date) from public;

do $$
declare
  last bigint;
  month date := date_trunc('month', transaction_timestamp() at time zone 'UTC');
begin
  perform public.audit_partition('audit_default', 'default');
  select max(audit_id) into last from public.audit_before_months;
  if last is null then
    drop table public.audit_before_months;
  else
    -- A clock of the hub may have been ahead of the database's.
    month := greatest(month, public.audit_month_of(last)) + interval '1 month';
    execute format('alter table public.audit attach partition public.audit_before_months for values from (minvalue) to (%s)',
      public.audit_first_id(month));
  end if;
  perform public.make_audit_month(month);
  perform public.make_audit_month((month + interval '1 month')::date);
  -- `migrate` repairs rights afterwards. Until then processes of the version before write here as well.
  if exists (select from pg_roles where rolname = 'notihub_app') then
    grant select, insert on public.audit to notihub_app;
    grant execute on function public.make_audit_month(date), public.drop_audit_months(date) to notihub_app;
  end if;
end $$;
