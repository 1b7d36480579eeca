-- What is booked of a provider's limit, held until the transaction ends: who takes next sees what was taken. $1 provider.
select state from provider_limits where provider = $1 for update
