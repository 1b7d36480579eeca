-- What endpoints say of a person: who is told, and their descriptions. $1 partner (null: all), $2 the person's address in
-- every form, as regular expressions[].
update endpoints
set contact_email = case when contact_email ~* any($2) then null else contact_email end,
  description = case when description ~* any($2) then null else description end
where ($1::bigint is null or partner_id = $1) and (contact_email ~* any($2) or description ~* any($2))
