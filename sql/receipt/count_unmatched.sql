-- Counts receipts that match no attempt, by provider.
-- $1 received_at before this, $2 receipts to count at most in all.
select provider as "provider!", count(*) as "receipts!", min(received_at) as "since!"
from (
  select provider, received_at from receipts
  where applied_at is null and effect = 'unmatched' and received_at < $1
  limit $2) r
group by provider
