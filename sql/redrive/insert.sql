-- Inserts a job. A job that a partner started is inserted only if the partner has fewer than $10 running.
-- $1 redrive_id, $2 kind, $3 partner_id (null: all), $4 endpoint_id, $5 filter, $6 rate_per_second, $7 expected number,
-- $8 requested_by, $9 now, $10 running jobs of one partner at most.
insert into redrives (redrive_id, kind, partner_id, endpoint_id, filter, rate_per_second, expected, requested_by,
  created_at, stepped_at)
select $1, ($2::text)::redrive_kind, $3, $4, $5, $6, $7, $8, $9, $9
where $2 = 'REDRIVE'
  or (select count(*) from redrives where partner_id = $3 and status = 'RUNNING' and kind <> 'REDRIVE') < $10
