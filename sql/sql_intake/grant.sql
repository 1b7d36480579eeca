-- Allows a database role to enqueue for a partner, and confirms a grant that was carried over.
-- $1 role_name, $2 partner_id, $3 now.
insert into intake_grants (role_name, partner_id, granted_at) values ($1, $2, $3)
on conflict (role_name, partner_id) do update set carried_over = false
