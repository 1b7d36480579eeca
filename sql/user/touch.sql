-- Records that a user was seen, at most once in the time before $4.
-- $1 shard, $2 user_id, $3 now, $4 seen before this.
update users set last_seen_at = $3
where shard = $1 and user_id = $2 and state <> 'DELETED' and (last_seen_at is null or last_seen_at < $4)
