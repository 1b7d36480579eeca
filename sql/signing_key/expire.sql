-- Nothing that was signed before is taken any more, and those that are over are forgotten. $1 kept: signed with from now on,
-- $2 now.
delete from signing_keys where kid <> $1 or expires_at <= $2
