-- Whether a user of a partner has this name to sign in with.
-- $1 shard, $2 partner_id, $3 username_key.
select exists (select from users where shard = $1 and partner_id = $2 and username_key = $3) as "taken!"
