-- Finds users of many partners: by the partner's own id of the user, else by the user's id.
-- $1 shard, $2 partner_id, $3 external_id, $4 user_id (null: the text is no id) of each user wanted.
select w.n as "n!", u.user_id as "user_id!", u.state::text as "state!"
from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[]) with ordinality
  as w(shard, partner_id, external_id, user_id, n)
cross join lateral (
  select e.user_id, e.state, 1 as rank
  from users e
  where e.shard = w.shard and e.partner_id = w.partner_id and e.external_id = w.external_id
  union all
  select i.user_id, i.state, 2
  from users i
  where i.shard = w.shard and i.user_id = w.user_id and i.partner_id = w.partner_id
  order by rank
  limit 1
) u
