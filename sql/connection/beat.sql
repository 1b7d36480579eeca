-- Records that a process with connections lives, and removes processes that were not seen for long, with their
-- connections.
-- $1 process_id, $2 now, $3 seen_at before this.
with gone as (
  delete from live_processes where seen_at < $3 returning process_id
),
closed as (
  delete from connections c using gone g where c.process_id = g.process_id
)
insert into live_processes (process_id, seen_at) values ($1, $2)
on conflict on constraint pk_live_processes do update set seen_at = excluded.seen_at
