-- Sets deliveries apart as suspects, in the transaction that makes them SCHEDULED for a time that never comes.
-- $1 shard[], $2 message_id[], $3 no[], $4 lane[], $5 deaths (workers lost while they held it)[], $6 claimable from
-- this time on[].
insert into suspects (shard, message_id, no, lane, deaths, ready_at)
select * from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::smallint[], $6::timestamptz[])
on conflict on constraint pk_suspects do update
set lane = excluded.lane, deaths = excluded.deaths, ready_at = excluded.ready_at
