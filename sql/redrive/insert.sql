-- A job; one of a partner's own unless it has as many running as it may. $1 redrive_id, $2 kind, $3 partner (null: all), $4 endpoint,
-- $5 filter, $6 rate, $7 how many there are, $8 by whom, $9 now, $10 jobs of one partner at the same time.
insert into redrives (redrive_id, kind, partner_id, endpoint_id, filter, rate_per_second, expected, requested_by,
  created_at, stepped_at)
select $1, ($2::text)::redrive_kind, $3, $4, $5, $6, $7, $8, $9, $9
where $2 = 'REDRIVE'
  or (select count(*) from redrives where partner_id = $3 and status = 'RUNNING' and kind <> 'REDRIVE') < $10
