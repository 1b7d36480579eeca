-- Inserts an API key. Inserts nothing if the client id, or the partner's key, exists already.
-- $1 client_id, $2 role, $3 partner_id, $4 name, $5 secret_hash, $6 now.
insert into keys (client_id, role, partner_id, name, secret_hash, created_at)
values ($1, ($2::text)::key_role, $3, $4, $5, $6)
on conflict do nothing
returning client_id
