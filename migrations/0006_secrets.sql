-- Keys that sign tokens, sealed under the installation's master key.

create table signing_keys (
  kid text not null,
  sealed bytea not null,
  created_at timestamptz not null,
  -- Signs from then on: by then every process has read it.
  active_at timestamptz not null,
  -- Verifies until then.
  expires_at timestamptz not null,
  constraint pk_signing_keys primary key (kid)
);
