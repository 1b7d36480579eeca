-- Grants one process a number of requests out of a partner's limit. The limit applies to the last second: $6 slots, of
-- which the newest has just begun. All processes charge the same row, once per grant. Slots that have passed no longer
-- count; neither does a row far ahead of $2, which comes from a clock that was set back.
-- $1 partner_id, $2 current slot, $3 requests wanted, $4 limit per second, $5 least useful grant, $6 number of slots
-- counted.
insert into request_rates as r (partner_id, slot, counts, granted)
values ($1, $2, array[case when $5::int <= $4::int then least($3::int, $4::int) else 0 end]
    || array_fill(0, array[$6::int - 1]),
  case when $5::int <= $4::int then least($3::int, $4::int) else 0 end)
on conflict (partner_id) do update set (slot, counts, granted) = (
  select case when ahead.far then $2 else greatest(r.slot, $2) end,
    array[shifted.counts[1] + give.n] || shifted.counts[2:], give.n
  from (select r.slot > $2 + $6::int as far) ahead
  cross join lateral (
    select case when ahead.far then $6::int else least(greatest($2 - r.slot, 0), $6::int)::int end as n
  ) passed
  cross join lateral (
    select array_fill(0, array[passed.n]) || r.counts[1:$6::int - passed.n] as counts
  ) shifted
  cross join lateral (select $4::int - (select sum(c) from unnest(shifted.counts) c)::int as n) free
  cross join lateral (select case when free.n >= $5::int then greatest(least($3::int, free.n), 0) else 0 end as n) give
)
returning granted as "granted!", greatest($4::int - (select sum(c) from unnest(counts) c)::int, 0) as "free!"
