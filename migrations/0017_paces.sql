-- Destinations that answered "too fast" (429) or failed again and again: what all processes know of when each may be sent
-- to again. Written only when that happens, and for each message sent there until it is forgotten.
create table destination_paces (
  provider text not null,
  -- The recipient as the delivery has it; '' where the whole account is limited.
  destination text not null,
  -- Nothing is sent there before.
  next_at timestamptz not null,
  -- After that, one message each so many milliseconds.
  interval_ms integer not null,
  -- Messages sent since it last answered "too fast".
  turns integer not null default 0,
  -- How often it was seen to fail while it is in trouble; 0: it is not.
  failures smallint not null default 0,
  changed_at timestamptz not null,
  constraint pk_destination_paces primary key (provider, destination)
);
