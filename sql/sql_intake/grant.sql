-- Lets a database role enqueue for a partner; a grant that was carried over is confirmed by it. $1 role, $2 partner_id,
-- $3 now.
insert into intake_grants (role_name, partner_id, granted_at) values ($1, $2, $3)
on conflict (role_name, partner_id) do update set carried_over = false
