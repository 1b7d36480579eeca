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

-- Seed 000's `messages` in its own words of status beside ours (checklist, "one machine, four vocabularies").
create or replace view messages_with_status as
select m.message_id, m.partner_id, m.client_msg_id, m.kind as message_type, m.detail, m.created_at,
  d.recipient, d.status,
  case d.status
    when 'SCHEDULED' then 'RECEIVED' when 'PENDING' then 'RECEIVED'
    when 'CANCELED' then 'FAILED' when 'UNDETERMINED' then 'FAILED'
    else d.status::text
  end as gateway_status
from messages m
join deliveries d on d.shard = m.shard and d.message_id = m.message_id;
