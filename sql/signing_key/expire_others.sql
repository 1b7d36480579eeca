-- Deletes all signing keys but one, and that one too if it has expired: tokens signed with the others become invalid.
-- $1 kid that is kept, $2 now.
delete from signing_keys where kid <> $1 or expires_at <= $2
