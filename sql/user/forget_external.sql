-- Forgets the former external ids of users that were deleted so long ago that no token names them any more.
-- $1 deleted before this, $2 rows at most.
update users set former_external_hash = null where (shard, user_id) in (
  select shard, user_id from users where former_external_hash is not null and deleted_at < $1 limit $2)
