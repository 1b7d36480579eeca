-- The devices of a user, newest first. There are few.
-- $1 shard, $2 user_id.
select device_id, platform, app, disabled_at, reason, created_at
from devices where shard = $1 and user_id = $2 order by device_id desc
