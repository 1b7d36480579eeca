-- Which attempts a provider's own ids stand for. $1 provider[], $2 provider_ref[], $3 shard[], $4 message_id[], $5 no[],
-- $6 attempt[]: one each per attempt, sorted by the first two. A provider that gives an id twice means what it was given first.
insert into provider_refs (provider, provider_ref, shard, message_id, no, attempt)
select * from unnest($1::text[], $2::text[], $3::smallint[], $4::bigint[], $5::smallint[], $6::smallint[])
on conflict do nothing
