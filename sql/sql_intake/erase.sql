-- What of a person was refused is forgotten as a whole; what waits becomes a message first. $1 partner (null: all), $2 the
-- person's address in every form, as regular expressions[].
delete from notihub.refusals
where ($1::bigint is null or partner_id = $1)
  and (body ~* any($2) or client_msg_id ~* any($2) or detail ~* any($2) or errors::text ~* any($2))
