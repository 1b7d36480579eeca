-- The list could not be read: nobody asks again before that time. $1 provider, $2 until.
update provider_cursors set lease_until = $2 where provider = $1
