-- Every user is on the shard of its partner; of a deleted user nothing personal is left; and passwords and devices
-- belong to users. (The id is the user's.)
select u.user_id as "message_id!", 0::smallint as "no!",
  format('user on shard %s, its partner on %s', u.shard, coalesce(p.shard::text, 'none')) as "found!"
from users u
left join partners p on p.partner_id = u.partner_id
where p.shard is distinct from u.shard
union all
select u.user_id, 0::smallint, 'deleted user with a profile'
from users u
where u.state = 'DELETED'
  and (u.nickname <> '' or coalesce(u.external_id, u.username, u.username_key, u.bio, u.profile_image_url,
    u.background_image_url, u.email, u.phone, u.locale, u.time_zone) is not null)
union all
select c.user_id, 0::smallint, 'password without a user who signs in'
from credentials c
left join users u on u.shard = c.shard and u.user_id = c.user_id
where u.username_key is null
union all
select d.user_id, 0::smallint, 'device without its user'
from devices d
left join users u on u.shard = d.shard and u.user_id = d.user_id and u.partner_id = d.partner_id
where u.user_id is null or u.state = 'DELETED'
union all
select b.user_id, 0::smallint, 'block of a user who is not there'
from user_blocks b
left join users u on u.shard = b.shard and u.user_id = b.blocked_id
where u.user_id is null or u.state = 'DELETED'
