-- An API key with the hashes of its secrets, and the failed sign-ins that count against a sign-in from this network:
-- those of the network if the client holds a valid refresh token issued there, else those of all other networks
-- together.
-- $1 client_id, $2 network (empty: unknown), $3 now.
select k.client_id, k.role::text as "role!", k.partner_id, k.name, k.secret_hash, k.former_hash, k.former_until,
  k.epoch, k.revoked_at, k.created_at, judged.network as "network!", f.since as "since?", f.failures as "failures?"
from keys k
cross join lateral (
  select case when exists (
    select from refresh_tokens t
    where t.client_id = k.client_id and t.network = $2 and t.expires_at > $3 and t.revoked_at is null
  ) then $2 else '' end as network
) judged
left join sign_in_failures f on f.client_id = k.client_id and f.network = judged.network
where k.client_id = $1
