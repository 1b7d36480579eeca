-- Whether an admin may sign in.
select exists (select from keys where role = 'ADMIN' and revoked_at is null) as "any!"
