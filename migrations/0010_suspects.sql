-- Suspects: deliveries whose worker was lost while it held them. Each is claimed alone, so that one that takes its worker with
-- it takes no other delivery with it. Most of the time there are none.
create table suspects (
  shard smallint not null,
  message_id bigint not null,
  no smallint not null,
  lane smallint not null,
  -- Workers that were lost while they held it.
  deaths smallint not null,
  -- From when it may be claimed.
  ready_at timestamptz not null,
  constraint pk_suspects primary key (shard, message_id, no)
);
-- Without the shard: by its key alone a suspect is looked up, whatever the planner believes of the table.
create index idx_suspect_ready_at on suspects (ready_at);
