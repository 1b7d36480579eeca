-- Makes users by the partners' own ids. A user that another transaction made, or whose random code is taken, is left
-- out: look for it again. In the order of the unique key, so that two transactions cannot wait for each other in a
-- ring. Tokens of a former user of that id stay void: those issued up to the second in which it was deleted.
-- $1 shard, $2 partner_id, $3 external_id, $4 user_id, $5 nickname, $6 user_code, $8 former_external_hash of each user,
-- $7 now.
insert into users (shard, partner_id, external_id, user_id, nickname, user_code, tokens_after, created_at, updated_at)
select w.shard, w.partner_id, w.external_id, w.user_id, w.nickname, w.user_code,
  (select date_trunc('second', f.deleted_at) + interval '1 s'
    from users f
    where f.shard = w.shard and f.partner_id = w.partner_id and f.former_external_hash between w.hash and w.hash
    order by f.former_external_hash desc, f.deleted_at desc
    limit 1),
  $7, $7
from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $8::bytea[])
  as w(shard, partner_id, external_id, user_id, nickname, user_code, hash)
order by w.shard, w.partner_id, w.external_id
on conflict do nothing
