-- Stores which attempt each of a provider's own ids stands for. An id that a provider gives twice keeps its first
-- attempt.
-- One each per attempt, sorted by the first two: $1 provider[], $2 provider_ref[], $3 shard[], $4 message_id[], $5
-- no[], $6 attempt[].
insert into provider_refs (provider, provider_ref, shard, message_id, no, attempt)
select * from unnest($1::text[], $2::text[], $3::smallint[], $4::bigint[], $5::smallint[], $6::smallint[])
on conflict do nothing
