-- Counts one more failed sign-in, or the first of a new period, and returns the count. A period that began more than 10
-- s ahead of now comes from a clock that was set back and is replaced; less than that is due to concurrent requests and
-- other hosts' clocks.
-- $1 client_id, $2 network, $3 now, $4 a period that began at or before this is over.
insert into sign_in_failures as f (client_id, network, since, failures) values ($1, $2, $3, 1)
on conflict (client_id, network) do update set
  since = case when f.since > $4 and f.since <= $3::timestamptz + interval '10 s' then f.since else $3 end,
  failures = case when f.since > $4 and f.since <= $3::timestamptz + interval '10 s' then f.failures + 1 else 1 end
returning since, failures
