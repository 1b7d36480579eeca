-- Receipts that name nothing we know, for longer than it takes to write what they may be about. $1 received before this.
select provider, count(*) as "receipts!", min(received_at) as "since!"
from receipts
where applied_at is null and effect = 'unmatched' and received_at < $1
group by provider
