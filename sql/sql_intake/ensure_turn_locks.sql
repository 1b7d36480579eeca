-- Creates the relay lock's row of each partner that has requests for the first time. Runs in a transaction of its own:
-- otherwise another relay would wait for the uncommitted row.
with recursive waiting as (
  (select partner_id from notihub.requests order by partner_id limit 1)
  union all
  select (select r.partner_id from notihub.requests r where r.partner_id > w.partner_id order by r.partner_id limit 1)
  from waiting w where w.partner_id is not null
)
insert into hub_locks (name, partner_id)
select 'relay', w.partner_id from waiting w
where w.partner_id is not null
  and not exists (select from hub_locks l where l.name = 'relay' and l.partner_id = w.partner_id)
order by w.partner_id
on conflict (name, partner_id) do nothing
