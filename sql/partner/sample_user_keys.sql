-- Of the keys with which partners sign tokens for their users, one per column and master key that sealed any.
select distinct on (s.place, substring(s.sealed from 1 for 5)) s.place as "place!", s.partner_id as "partner_id!",
  s.sealed as "sealed!"
from (
  select 'user_key' as place, partner_id, user_key as sealed from partners
  union all
  select 'former_user_key', partner_id, former_user_key from partners
) s
where s.sealed is not null
order by s.place, substring(s.sealed from 1 for 5), s.partner_id desc
