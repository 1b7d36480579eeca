-- Failed sign-ins of a client, counted over all processes, and the networks that it is known in.

-- The network of the caller that was given the token; null where its address was unknown.
alter table refresh_tokens add column network text;
create index idx_refresh_token_client on refresh_tokens (client_id, network);

-- Only clients that exist have rows: one for each network in which the client holds a refresh token, and one for all
-- others. Not logged: after a crash all begin at nothing.
create unlogged table sign_in_failures (
  client_id text not null,
  -- Empty: all networks in which the client holds no refresh token.
  network text not null,
  since timestamptz not null,
  failures integer not null,
  constraint pk_sign_in_failures primary key (client_id, network)
);
