-- Changes a room. The caller holds the lock of its gate.
-- $1 shard, $2 room_id, $3 visibility, $4 title, $5 settings, $6 metadata, $7 retention_days, $8 now, $9 most_members,
-- $10 admins_write, $11 slow_mode_s.
with head as (
  update room_gates set most_members = $9, admins_write = $10, slow_mode_s = $11 where shard = $1 and room_id = $2
)
update rooms set visibility = ($3::text)::room_visibility, title = $4, settings = $5, metadata = $6,
  retention_days = $7, updated_at = $8
where shard = $1 and room_id = $2
