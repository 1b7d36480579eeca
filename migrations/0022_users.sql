-- Users: a partner's own people. A user belongs to one partner and lives on its shard. Columns that are added to partners
-- have constant defaults, so no table is rewritten; all other tables are new.

alter table partners
  -- Whether people may make a user for themselves.
  add column sign_up boolean not null default false,
  -- The key with which the partner signs tokens for its users, sealed; its number, which tokens name; and the key before
  -- it, valid until a time.
  add column user_key bytea,
  add column user_key_no smallint not null default 0,
  add column former_user_key bytea,
  add column former_user_key_until timestamptz,
  -- Days after which messages in rooms are deleted. Null: never.
  add column chat_retention_days smallint;

create type user_state as enum ('ACTIVE', 'BLOCKED', 'DELETED');

create table users (
  shard smallint not null,
  user_id bigint not null,
  partner_id bigint not null,
  -- The partner's own id of the user. Null: the user signed up.
  external_id text,
  -- Of a deleted user: keyed hash of its external id, while tokens from before the deletion may still be valid.
  former_external_hash bytea,
  -- The name to sign in with, and its form for comparison: NFKC in lower case. Null: the user never signed up.
  username text,
  username_key text,
  nickname text not null,
  -- 8 characters of base32, at random.
  user_code text not null,
  -- ONLINE, AWAY, BUSY or OFFLINE, as the user wants to be shown. Null: as it is.
  shown_as text,
  bio text,
  profile_image_url text,
  background_image_url text,
  email text,
  phone text,
  locale text,
  time_zone text,
  state user_state not null default 'ACTIVE',
  -- Tokens issued before this are void.
  tokens_after timestamptz,
  -- Written once a minute at most.
  last_seen_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  deleted_at timestamptz,
  constraint pk_users primary key (shard, user_id),
  constraint uk_user_external unique (shard, partner_id, external_id),
  constraint uk_user_name unique (shard, partner_id, username_key),
  constraint uk_user_code unique (shard, partner_id, user_code)
) with (fillfactor = 90);
-- A partner's users, newest first: several partners share a shard.
create index idx_user_partner on users (shard, partner_id, user_id);
create index idx_user_former_external on users (shard, partner_id, former_external_hash)
  where former_external_hash is not null;

-- Passwords, apart from what other users may see.
create table credentials (
  shard smallint not null,
  user_id bigint not null,
  -- bcrypt, $2b$.
  password_hash text not null,
  -- Failed sign-ins in a row, and the time until which every sign-in is refused.
  failures smallint not null default 0,
  wait_until timestamptz,
  changed_at timestamptz not null,
  constraint pk_credentials primary key (shard, user_id)
);

-- Where pushes to a user go.
create table devices (
  shard smallint not null,
  device_id bigint not null,
  user_id bigint not null,
  partner_id bigint not null,
  -- FCM, APNS or WEBPUSH.
  platform text not null,
  -- The app, where a partner has several.
  app text,
  -- The token of the device at its platform, sealed, and its keyed hash.
  token bytea not null,
  token_hash bytea not null,
  -- When a push was last accepted; when and why the device was disabled.
  ok_at timestamptz,
  disabled_at timestamptz,
  reason text,
  created_at timestamptz not null,
  constraint pk_devices primary key (shard, device_id),
  constraint uk_device_token unique (shard, partner_id, token_hash)
);
create index idx_device_user on devices (shard, user_id, device_id);

create table user_blocks (
  shard smallint not null,
  user_id bigint not null,
  blocked_id bigint not null,
  at timestamptz not null,
  constraint pk_user_blocks primary key (shard, user_id, blocked_id)
);
create index idx_user_block_blocked on user_blocks (shard, blocked_id);
