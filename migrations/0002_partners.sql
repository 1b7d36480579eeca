-- Partners as tenants: what each may do, who signs in for it, and what was done to it by whom.

create type partner_status as enum ('ACTIVE', 'INACTIVE');
create type key_role as enum ('PARTNER', 'OPERATOR', 'ADMIN');

alter table partners
  add column status partner_status not null default 'ACTIVE',
  add column rate_limit_tps integer not null default 1000,
  -- How long it may look at a message of its own.
  add column lookup_days smallint not null default 1,
  -- Content is erased after so many days; null: kept as long as its partition.
  add column retention_days smallint,
  -- Whose days its statistics are of. Fixed at creation: the books of past days are kept by it.
  add column time_zone text not null default 'Asia/Seoul',
  -- Where a phone number without a country is from.
  add column region text not null default 'KR',
  -- Null: every channel.
  add column channels text[],
  add column may_schedule boolean not null default true,
  add column may_cancel boolean not null default true,
  add column encrypt_content boolean not null default false,
  -- Messages below this had their content erased by retention.
  add column erased_below bigint not null default 0,
  add constraint ck_partner_rate_limit check (rate_limit_tps > 0),
  add constraint ck_partner_lookup check (lookup_days between 1 and 3650),
  add constraint ck_partner_retention check (retention_days between 1 and 3650);

-- Who may sign in. A partner has one; operators and admins belong to no partner.
create table keys (
  client_id text not null,
  role key_role not null,
  partner_id bigint,
  name text not null,
  -- HMAC-SHA256 of the secret under this installation's pepper. The secret itself is nowhere.
  secret_hash bytea not null,
  -- During a rotation the secret before is good until then.
  former_hash bytea,
  former_until timestamptz,
  -- Tokens of an earlier epoch are void.
  epoch integer not null default 1,
  revoked_at timestamptz,
  created_at timestamptz not null,
  constraint pk_keys primary key (client_id),
  constraint uk_key_partner unique (partner_id),
  constraint ck_key_role check ((role = 'PARTNER') = (partner_id is not null))
);

-- Refresh tokens, by their hash. All that came from one sign-in are a family.
create table refresh_tokens (
  token_hash bytea not null,
  family bigint not null,
  client_id text not null,
  epoch integer not null,
  issued_at timestamptz not null,
  expires_at timestamptz not null,
  used_at timestamptz,
  revoked_at timestamptz,
  constraint pk_refresh_tokens primary key (token_hash)
);
create index idx_refresh_token_family on refresh_tokens (family);
create index idx_refresh_token_expires_at on refresh_tokens (expires_at);

-- How many requests each partner made of late. Not logged: after a crash everybody begins at nothing.
create unlogged table request_rates (
  partner_id bigint not null,
  -- The newest slot that was counted, and the counts of the slots up to it, the newest first.
  slot bigint not null,
  counts integer[] not null,
  -- What the last lease got.
  granted integer not null,
  constraint pk_request_rates primary key (partner_id)
);

-- What operators, admins and people at the machine did. Only ever added to.
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
);
create index idx_audit_partner_id on audit (partner_id, audit_id);
create index idx_audit_actor on audit (actor, audit_id);

create function audit_is_only_added_to() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is only ever added to';
end $$;
create trigger audit_append_only before update or delete or truncate on audit
  for each statement execute function audit_is_only_added_to();
