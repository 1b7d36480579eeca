-- Records a period in which a provider is not called. A period that follows directly on one with the same reason
-- extends that one.
-- $1 provider, $2 reason, $3 began_at, $4 ended_at, $5 detail, $6 a period that ended at or after this is extended.
with extended as (
  update provider_holds set ended_at = greatest(ended_at, $4), detail = coalesce($5, detail)
  where provider = $1 and reason = $2 and ended_at >= $6 and began_at <= $3
  returning began_at
)
insert into provider_holds (provider, reason, began_at, ended_at, detail)
select $1, $2, $3, $4, $5 where not exists (select from extended)
on conflict (provider, reason, began_at) do update set ended_at = greatest(provider_holds.ended_at, excluded.ended_at)
