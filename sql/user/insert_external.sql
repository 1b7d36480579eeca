-- Makes users by the partners' own ids. A user that another transaction made, or whose random code is taken, is left
-- out: look for it again. In the order of the unique key, so that two transactions cannot wait for each other in a
-- ring.
-- $1 shard, $2 partner_id, $3 external_id, $4 user_id, $5 nickname, $6 user_code of each user, $7 now.
insert into users (shard, partner_id, external_id, user_id, nickname, user_code, created_at, updated_at)
select w.shard, w.partner_id, w.external_id, w.user_id, w.nickname, w.user_code, $7, $7
from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])
  as w(shard, partner_id, external_id, user_id, nickname, user_code)
order by w.shard, w.partner_id, w.external_id
on conflict do nothing
