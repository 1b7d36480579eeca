-- Of each sealed column of endpoints that are not deleted, one value per master key that sealed any.
select distinct on (s.place, substring(s.sealed from 1 for 5)) s.place as "place!", s.endpoint_id as "endpoint_id!",
  s.sealed as "sealed!"
from (
  select 'secret' as place, endpoint_id, secret as sealed from endpoints where status <> 'DELETED'
  union all
  select 'former_secret', endpoint_id, former_secret from endpoints where status <> 'DELETED'
  union all
  select 'headers', endpoint_id, headers from endpoints where status <> 'DELETED'
) s
where s.sealed is not null
order by s.place, substring(s.sealed from 1 for 5), s.endpoint_id desc
