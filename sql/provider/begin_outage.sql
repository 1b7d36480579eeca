-- A span in which a provider is not asked; one that follows at once on another of its kind makes that longer. $1 provider,
-- $2 reason, $3 began_at, $4 ended_at, $5 detail, $6 what ended at this time or later is followed at once.
with longer as (
  update provider_holds set ended_at = greatest(ended_at, $4), detail = coalesce($5, detail)
  where provider = $1 and reason = $2 and ended_at >= $6 and began_at <= $3
  returning began_at
)
insert into provider_holds (provider, reason, began_at, ended_at, detail)
select $1, $2, $3, $4, $5 where not exists (select from longer)
on conflict (provider, reason, began_at) do update set ended_at = greatest(provider_holds.ended_at, excluded.ended_at)
