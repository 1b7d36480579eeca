-- Writes the keys with which a partner signs tokens for its users.
-- $1 partner_id, $2 user_key, $3 user_key_no, $4 former_user_key, $5 former_user_key_until.
update partners set user_key = $2, user_key_no = $3, former_user_key = $4, former_user_key_until = $5
where partner_id = $1
