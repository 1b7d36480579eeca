-- Rooms: where the users of a partner talk. Expands only: the version before neither reads nor writes these tables.

create type room_kind as enum ('INDIVIDUAL', 'GROUP');
create type room_visibility as enum ('PUBLIC', 'PRIVATE');
create type member_role as enum ('OWNER', 'ADMIN', 'MEMBER');

create table rooms (
  shard smallint not null,
  room_id bigint not null,
  partner_id bigint not null,
  kind room_kind not null,
  visibility room_visibility not null,
  title text,
  settings jsonb not null default '{}',
  metadata jsonb not null default '{}',
  -- Of an INDIVIDUAL room: the two userIds, the lower one first. A pair has one room.
  pair_key text,
  -- Null: after the partner's chat_retention_days.
  retention_days smallint,
  -- Whether its texts are sealed with a master key.
  encrypted boolean not null,
  created_by bigint not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  closed_at timestamptz,
  constraint pk_rooms primary key (shard, room_id)
);
-- The pair leads: a search for it is then not planned by shard and partner alone.
create unique index uk_room_pair on rooms (pair_key, shard, partner_id) where pair_key is not null;
create index idx_room_public on rooms (partner_id, room_id) where visibility = 'PUBLIC' and closed_at is null;

-- The head of a room's stream, and all that a message is judged by: one row that those who write in a room wait for.
-- Narrow, and updated in place.
create table room_heads (
  shard smallint not null,
  room_id bigint not null,
  -- The number of the last event. Messages are events.
  seq bigint not null default 0,
  -- The number of messages: what is unread is a difference of two of them.
  no bigint not null default 0,
  -- The number and the id of the last message; before the first one, the room's id. Ids are in the order of time: by
  -- them rooms are listed.
  last_seq bigint not null default 0,
  last_id bigint not null,
  -- The sender of the last message, who has read the room with it.
  last_sender_id bigint,
  members integer not null default 0,
  most_members integer not null,
  is_open boolean not null default true,
  is_individual boolean not null,
  -- Only owners and admins may write.
  admins_write boolean not null default false,
  -- Least time between two messages of a member.
  slow_mode_s integer not null default 0,
  constraint pk_room_heads primary key (shard, room_id),
  constraint ck_room_head_members check (members between 0 and most_members),
  constraint ck_room_head_numbers check (no <= seq and last_seq <= seq)
) with (fillfactor = 50);

create table members (
  shard smallint not null,
  room_id bigint not null,
  user_id bigint not null,
  role member_role not null,
  joined_at timestamptz not null,
  -- Sees messages whose number is above.
  from_no bigint not null default 0,
  -- Has read, and was handed, the messages up to this number.
  read_no bigint not null default 0,
  delivered_no bigint not null default 0,
  read_at timestamptz,
  -- Left a room of two: it is not listed until a message has a number above.
  hidden_no bigint not null default -1,
  left_at timestamptz,
  -- The number of the event with which the member left: nothing above it is shown.
  left_seq bigint,
  banned_at timestamptz,
  notify text not null default 'ALL',
  muted_until timestamptz,
  silenced_until timestamptz,
  constraint pk_members primary key (shard, room_id, user_id),
  constraint ck_member_notify check (notify in ('ALL', 'MENTIONS', 'NONE')),
  constraint ck_member_left check ((left_at is null) = (left_seq is null)),
  constraint ck_member_banned check (banned_at is null or left_at is not null)
) with (fillfactor = 80);
create index idx_member_user on members (user_id, shard, room_id) where left_at is null;

-- Messages of rooms. Each is its own event: seq is the room's. A hash of the room keeps a room in one place: a page,
-- and the search for a tempId, touch one partition whatever the room's age.
create table chat_messages (
  shard smallint not null,
  room_id bigint not null,
  seq bigint not null,
  no bigint not null,
  -- Its time; and what its sealed content is bound to.
  chat_id bigint not null,
  sender_id bigint not null,
  -- The sender's own id of it: one message for (room, sender, tempId).
  temp_id text,
  kind text not null,
  -- JSON, or sealed.
  content text not null,
  version smallint not null default 1,
  edited_at timestamptz,
  deleted_at timestamptz,
  deleted_by bigint,
  constraint pk_chat_messages primary key (shard, room_id, seq),
  constraint ck_chat_message_kind check (kind in ('TEXT', 'IMAGE', 'FILE', 'VIDEO', 'AUDIO', 'SYSTEM'))
) partition by hash (room_id);
create unique index uk_chat_message_temp on chat_messages (room_id, sender_id, temp_id, shard)
  where temp_id is not null;
do $$
begin
  for n in 0..15 loop
    execute format(
      'create table chat_messages_%s partition of chat_messages for values with (modulus 16, remainder %s)', n, n);
  end loop;
end $$;

-- What an edit or a deletion replaced, for moderators; kept 30 days.
create table chat_versions (
  shard smallint not null,
  room_id bigint not null,
  seq bigint not null,
  version smallint not null,
  chat_id bigint not null,
  content text not null,
  ended_at timestamptz not null,
  ended_by bigint not null,
  constraint pk_chat_versions primary key (shard, room_id, seq, version)
);
create index idx_chat_version_ended on chat_versions (ended_at);

-- Who read up to where, and when: a message was read at the first mark at or above its number. Kept 90 days.
create table read_marks (
  shard smallint not null,
  room_id bigint not null,
  user_id bigint not null,
  up_to_no bigint not null,
  read_at timestamptz not null,
  constraint pk_read_marks primary key (shard, room_id, user_id, up_to_no)
);
create index idx_read_mark_old on read_marks using brin (read_at) with (autosummarize = on);

-- Seed 002's row for each reader of each message, as a view: marks say the same in one row.
create view chat_message_read_by_user as
select k.room_id as channel_id, c.seq as message_seq, k.user_id, min(k.read_at) as read_at
from read_marks k
join chat_messages c on c.shard = k.shard and c.room_id = k.room_id and c.no <= k.up_to_no
group by k.room_id, c.seq, k.user_id;

-- When its user last did something, if that was later than the connection was opened.
alter table connections add column active_at timestamptz;
