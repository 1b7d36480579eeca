-- Receipts that name nothing we know, for longer than it takes to write what they may be about. $1 received before this; no more
-- than $2 are counted.
select provider as "provider!", count(*) as "receipts!", min(received_at) as "since!"
from (
  select provider, received_at from receipts
  where applied_at is null and effect = 'unmatched' and received_at < $1
  limit $2) r
group by provider
