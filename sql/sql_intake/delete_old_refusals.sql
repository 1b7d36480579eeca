-- Deletes refusals after $2 days. They hold content, so those of a partner with a shorter content retention are deleted
-- after that.
-- $1 now, $2 days, $3 rows at most.
delete from notihub.refusals where request_id in (
  select r.request_id
  from notihub.refusals r
  left join partners p on p.partner_id = r.partner_id
  where r.refused_at < $1::timestamptz - make_interval(days => least($2::integer, p.retention_days))
  limit $3)
