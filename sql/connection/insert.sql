-- Records connections of this process that were opened.
-- $1 process_id; one each per connection: $2 connection_id[], $3 shard[], $4 user_id[], $5 kind[], $6 opened_at[].
insert into connections (connection_id, shard, user_id, process_id, kind, opened_at)
select c.connection_id, c.shard, c.user_id, $1, c.kind, c.opened_at
from unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::smallint[], $6::timestamptz[])
  as c(connection_id, shard, user_id, kind, opened_at)
on conflict on constraint pk_connections do nothing
