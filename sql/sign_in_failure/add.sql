-- One more failure, or the first of a new period; returns the count. A period from ahead is one of a clock that was set
-- back; a little ahead, of requests at the same moment and of other hosts' clocks. $1 client_id, $2 network, $3 now, $4 a period that began then or before is over.
insert into sign_in_failures as f (client_id, network, since, failures) values ($1, $2, $3, 1)
on conflict (client_id, network) do update set
  since = case when f.since > $4 and f.since <= $3::timestamptz + interval '10 s' then f.since else $3 end,
  failures = case when f.since > $4 and f.since <= $3::timestamptz + interval '10 s' then f.failures + 1 else 1 end
returning since, failures
