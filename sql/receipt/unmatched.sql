-- Receipts that are about nothing of ours, received before $1, by provider; no more than $2 are counted in all.
select provider as "provider!", count(*) as "receipts!", min(received_at) as "since!"
from (
  select provider, received_at from receipts
  where applied_at is null and effect = 'unmatched' and received_at < $1
  limit $2) r
group by provider
