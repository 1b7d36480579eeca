-- Refused requests whose time is over: they hold content, so a partner that has its content erased earlier has these erased
-- then too. $1 now, $2 days, $3 rows at most.
delete from notihub.refusals where request_id in (
  select r.request_id
  from notihub.refusals r
  left join partners p on p.partner_id = r.partner_id
  where r.refused_at < $1::timestamptz - make_interval(days => least($2::integer, p.retention_days))
  limit $3)
