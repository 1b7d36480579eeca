-- Makes a room with its head. No row: the pair has a room already.
-- $1 shard, $2 room_id, $3 partner_id, $4 kind, $5 visibility, $6 title, $7 settings, $8 metadata, $9 pair_key,
-- $10 encrypted, $11 created_by, $12 now, $13 most_members, $14 admins_write, $15 slow_mode_s.
with made as (
  insert into rooms (shard, room_id, partner_id, kind, visibility, title, settings, metadata, pair_key, encrypted,
    created_by, created_at, updated_at)
  values ($1, $2, $3, ($4::text)::room_kind, ($5::text)::room_visibility, $6, $7, $8, $9, $10, $11, $12, $12)
  on conflict do nothing
  returning shard, room_id, kind
)
insert into room_gates (shard, room_id, last_id, most_members, is_individual, admins_write, slow_mode_s)
select shard, room_id, room_id, $13, kind = 'INDIVIDUAL', $14, $15 from made
returning room_id
