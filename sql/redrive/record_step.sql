-- Records the progress of a job.
-- $1 redrive_id, $2 position, $3 number done in this step, $4 stepped_at (until when its rate is used up), $5
-- finished_at (null: not finished).
update redrives
set position = $2, done = done + $3, stepped_at = $4, finished_at = $5,
  status = case when $5::timestamptz is null then status else 'DONE' end
where redrive_id = $1
