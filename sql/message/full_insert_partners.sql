-- Those of $1 partner_id[], on $2 shard[], whose messages insert_plain.sql does not write: partners with endpoints or
-- erased keys.
select e.partner_id as "partner_id!"
from endpoints e
where e.shard = any($2) and e.partner_id = any($1) and e.status in ('ACTIVE', 'PAUSED')
union
select k.partner_id from erased_keys k where k.partner_id = any($1)
