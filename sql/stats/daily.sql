-- A partner's days, newest first, exact at this moment: what is rolled up and what is not yet, in one look.
-- $1 partner, $2 its time zone, $3 and $4 first and last day, $5 type (null: all), $6 the type of each lane, from lane 0 on.
select stat_date as "stat_date!", message_type as "message_type!", sum(total)::bigint as "total!",
  sum(success)::bigint as "success!", sum(failed)::bigint as "failed!"
from (
  select stat_date, message_type, total, success, failed
  from partner_daily_stats
  where partner_id = $1 and stat_date between $3 and $4
  union all
  select (counted_at at time zone $2)::date, ($6::text[])[lane + 1], total, success, failed
  from stat_deltas
  where partner_id = $1
) as s
where stat_date between $3 and $4 and ($5::text is null or message_type = $5)
group by stat_date, message_type
having sum(total) <> 0
order by stat_date desc, message_type
