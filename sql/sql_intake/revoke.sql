-- Revokes grants of a database role.
-- $1 role_name, $2 partner_id (null: of every partner), $3 true: only grants that were carried over.
delete from intake_grants
where role_name = $1 and ($2::bigint is null or partner_id = $2) and (carried_over or not $3::boolean)
