-- Keys of messages to persons who were erased. A key may name the person, so it goes; its keyed hash stays for as long as the
-- message, so that the same request again is known and sends nothing to somebody who is to be left alone.
create table erased_keys (
  partner_id bigint not null,
  -- HMAC-SHA256 of partner and key under this installation's pepper.
  key_hash bytea not null,
  message_id bigint not null,
  -- The request's, as it was in idempotency.
  fingerprint bytea not null,
  constraint pk_erased_keys primary key (partner_id, key_hash)
);
create index idx_erased_key_message_id on erased_keys using brin (message_id);
