-- Grants to enqueue for partners.
-- $1 partner_id (null: all).
select g.role_name, g.partner_id, p.name as partner, g.carried_over, g.granted_at
from intake_grants g
join partners p using (partner_id)
where $1::bigint is null or g.partner_id = $1
order by g.role_name, p.name
