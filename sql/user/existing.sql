-- Which of these are users of the partner, and have not gone.
-- $1 shard, $2 partner_id, $3 user_id[].
select u.user_id
from unnest($3::bigint[]) as w(user_id)
join users u on u.shard = $1 and u.user_id = w.user_id
where u.partner_id = $2 and u.state <> 'DELETED'
