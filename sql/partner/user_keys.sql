-- The keys with which a partner signs tokens for its users, sealed.
-- $1 partner_id.
select user_key, user_key_no, former_user_key, former_user_key_until from partners where partner_id = $1
