-- $1 role, $2 partner_id (null: of every partner), $3 only what was carried over.
delete from intake_grants
where role_name = $1 and ($2::bigint is null or partner_id = $2) and (carried_over or not $3::boolean)
