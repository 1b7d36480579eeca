-- Whether an admin key exists that is not revoked.
select exists (select from keys where role = 'ADMIN' and revoked_at is null) as "any!"
