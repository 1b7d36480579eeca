-- Locks the keys with which partners sign tokens for their users, for a change.
-- $1 partner_id after this, $2 rows at most.
select partner_id, user_key, user_key_no, former_user_key, former_user_key_until
from partners
where partner_id > $1 and user_key is not null
order by partner_id
limit $2
for update
