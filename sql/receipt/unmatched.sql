-- How many receipts are about nothing of ours, received before $1; no more than $2 are counted.
select count(*) as "count!"
from (select from receipts where applied_at is null and effect = 'unmatched' and received_at < $1 limit $2) r
