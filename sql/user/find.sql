-- Finds users of many partners: by the partner's own id of the user, else by the user's id. Each is looked for
-- as the first one of a range of one key, in the order of its index: while the table grows from nothing, a search by
-- equality may be planned along another index that begins with the same columns, through all users of the partner.
-- $1 shard, $2 partner_id, $3 external_id, $4 user_id (null: the text is no id) of each user wanted.
select w.n as "n!", u.user_id as "user_id!", u.state::text as "state!"
from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[]) with ordinality
  as w(shard, partner_id, external_id, user_id, n)
cross join lateral (
  (select e.user_id, e.state, 1 as rank
    from users e
    where e.shard = w.shard and e.partner_id = w.partner_id and e.external_id between w.external_id and w.external_id
    order by e.external_id
    limit 1)
  union all
  select i.user_id, i.state, 2
  from (
    select x.user_id, x.state, x.partner_id
    from users x
    where x.shard = w.shard and x.user_id between w.user_id and w.user_id
    order by x.user_id
    limit 1
  ) i
  where i.partner_id = w.partner_id
  order by rank
  limit 1
) u
